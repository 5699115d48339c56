"""Table 7: Kinetics-700."""
