"""Learning rate schedules, epochs and multigrid training."""
