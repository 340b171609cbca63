"""The paper's ablations on the built-in world: `sweep` says what, `run` runs it, `analysis` tests it."""
