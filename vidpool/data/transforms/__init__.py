"""Augmentation of training clips, and a contact sheet that shows it."""
