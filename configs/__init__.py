"""Configs shipped with vidpool, found by name: ``--config recipes/ucf101``."""
