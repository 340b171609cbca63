"""Measurements and experiments; see README.md."""
