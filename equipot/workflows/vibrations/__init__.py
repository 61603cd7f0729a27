"""Normal modes, infrared intensities and thermochemistry of molecules and other structures.

>>> from equipot.workflows.vibrations import VibrationsConfig, vibrations
>>> found = vibrations(potential, atoms, VibrationsConfig(temperature_K=400.0))
>>> print(found.summary())
"""

from equipot.workflows.force_constants import Displacements, Exact
from equipot.workflows.vibrations.calculation import Vibrations, vibrations
from equipot.workflows.vibrations.config import VibrationsConfig
from equipot.workflows.vibrations.thermochemistry import Harmonic, QuasiRRHO

__all__ = ["Displacements", "Exact", "Harmonic", "QuasiRRHO", "Vibrations", "VibrationsConfig", "vibrations"]
