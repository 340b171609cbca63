"""Ablations on the built-in world: `sweep` says what, `run` runs it, `report` says what came out."""
