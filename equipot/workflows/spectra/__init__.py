"""Spectra from trajectories: velocity autocorrelation, vibrational density of states, infrared absorption."""

from equipot.workflows.spectra.config import SpectraConfig
from equipot.workflows.spectra.infrared import Infrared, infrared, infrared_of_dipoles
from equipot.workflows.spectra.vibrations import VibrationalDOS, density_of_states

__all__ = ["Infrared", "SpectraConfig", "VibrationalDOS", "density_of_states", "infrared", "infrared_of_dipoles"]
