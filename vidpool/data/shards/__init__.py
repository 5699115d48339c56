"""Shards: the videos of a dataset in tar files that are read from one end to the other."""
