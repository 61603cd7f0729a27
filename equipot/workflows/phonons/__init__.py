"""Phonons of crystals by phonopy, with force constants from exact derivatives of a potential.

>>> from equipot.workflows.phonons import PhononsConfig, phonons
>>> found = phonons(potential, atoms, PhononsConfig(supercell_length=15.0))
>>> print(found.summary())
>>> found.crystal.phonon  # the phonopy.Phonopy, to go on from
"""

from equipot.workflows.force_constants import Displacements, Exact
from equipot.workflows.phonons.calculation import Phonons, phonons
from equipot.workflows.phonons.config import PhononsConfig, QHAConfig
from equipot.workflows.phonons.pictures import bands_figure, quasi_harmonic_figure, thermal_figure

__all__ = [
    "Displacements", "Exact", "Phonons", "PhononsConfig", "QHAConfig", "bands_figure", "phonons", "quasi_harmonic_figure",
    "thermal_figure",
]  # fmt: skip
