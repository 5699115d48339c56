"""Reading checkpoints of any origin and loading their weights into a network."""
