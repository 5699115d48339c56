"""Lightning callbacks of vidpool."""
