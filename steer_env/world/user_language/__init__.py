"""What users say: the frames of their turns, and how a turn is read."""
