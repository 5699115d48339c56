"""Table 7: UCF-101."""
