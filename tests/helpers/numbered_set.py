"""What the videos of the fixture `numbered` are like, in their order."""

LENGTHS = (41, 30, 23, 52, 9)  # frames
LABELS = (2, 0, 1, 2, 0)
