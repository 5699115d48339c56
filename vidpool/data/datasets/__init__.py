"""Datasets: HACS, Kinetics-700, UCF-101, custom videos and images, and the demo dataset."""
