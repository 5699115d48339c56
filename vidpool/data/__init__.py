"""Videos on disk, the clips read from them, and the datamodules that feed training."""
