"""Devices, precision and distributed training."""
