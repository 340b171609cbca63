"""The paper's ablations on the built-in world: `sweep` says what is run, `run` runs it, `analysis` tests it."""
