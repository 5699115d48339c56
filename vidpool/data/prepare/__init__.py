"""Preparation of a dataset before training: check it, and transcode its videos."""
