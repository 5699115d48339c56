"""The data sets: HACS, Kinetics-700, UCF-101, videos of one's own, and the demo's."""
