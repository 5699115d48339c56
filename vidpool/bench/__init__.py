"""Benchmarks: what the pooling operators cost beside PyTorch's own, measured in one process."""
