"""Benchmarks: what pooling and decoding cost beside what others offer, measured in one process."""
