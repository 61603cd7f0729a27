"""E0, the energies of isolated atoms, which are added to interaction energies on the host only, in double precision."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int


def isolated_atom_energy(
    numbers: Int[np.ndarray, " atoms"], energies: Mapping[int, float], source: str = ""
) -> Float[np.ndarray, " atoms"]:
    """Return E0 of each atom (eV): total energy = sum of E0 + interaction energy.

    Args:
        numbers: atomic numbers.
        energies: E0 (eV) by atomic number.
        source: origin of the atoms, for the message of an error.

    Raises:
        ValueError: an element that ``energies`` lacks.
    """
    elements, kind = np.unique(numbers, return_inverse=True)
    for z in elements:
        if int(z) not in energies:
            where = f"{source}: " if source else ""
            raise ValueError(f"{where}no isolated-atom energy E0 for the element with Z = {z}; give it in data.atomic_energies")
    return np.array([energies[int(z)] for z in elements], np.float64)[kind]
