"""What is done with a data set once, before training: checking, preparing, sharding."""
