"""Run folders broken at random, and what got lost counted: `python -m benchmarks.soak --minutes 20`."""
