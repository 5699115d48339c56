"""The catalogue of a dataset: its videos as a table, its splits, and its index file."""
