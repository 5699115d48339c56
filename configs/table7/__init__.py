"""The rows of the SoftPool paper's Table 7, by dataset."""
