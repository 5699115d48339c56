"""Augmentation of the training clips."""
