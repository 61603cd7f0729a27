"""Paths of least energy, saddle points, barriers and rates, for atoms or on any energy function."""

from equipot.workflows.neb.band import Band, BandConfig, relax_band
from equipot.workflows.neb.config import NEBConfig
from equipot.workflows.neb.descent import Way, descend
from equipot.workflows.neb.path import Reaction, reaction
from equipot.workflows.neb.rate import Rate, frequencies, vineyard
from equipot.workflows.neb.saddle import Saddle, SaddleConfig, find_saddle
from equipot.workflows.neb.surface import AtomsSurface, FunctionSurface, Surface

__all__ = [
    "AtomsSurface", "Band", "BandConfig", "FunctionSurface", "NEBConfig", "Rate", "Reaction", "Saddle", "SaddleConfig",
    "Surface", "Way", "descend", "find_saddle", "frequencies", "reaction", "relax_band", "vineyard",
]  # fmt: skip
