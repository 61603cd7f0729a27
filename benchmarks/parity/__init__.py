"""Converted potentials against the programs they come from."""
