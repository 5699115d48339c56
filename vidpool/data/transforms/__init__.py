"""What happens to the pixels of clips, and its picture."""
