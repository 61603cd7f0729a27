"""Crystals by published and trained potentials beside PBE and experiment."""
