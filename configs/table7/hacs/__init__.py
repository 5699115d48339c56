"""Table 7: HACS."""
