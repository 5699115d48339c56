"""The columns of the SoftPool paper's Table 6."""
