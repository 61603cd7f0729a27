"""The standard primitive cell of a crystal, its path through the Brillouin zone, and a supercell that is long enough."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot.structure import Structure

MOST = 40
"""Most copies of a cell along one vector of a supercell."""


class Standard(NamedTuple):
    """A crystal in the setting of Hinuma et al., Comput. Mater. Sci. 128, 140 (2017), as seekpath and spglib find it."""

    primitive: Structure
    """Standard primitive cell, turned into the standard orientation."""
    conventional: Int[np.ndarray, "3 3"]
    """Vectors of the conventional cell, as counts of primitive vectors in columns."""
    space_group: str
    """International symbol and number."""
    number: int
    """Number of the space group."""
    points: dict[str, tuple[float, float, float]]
    """Special points of the Brillouin zone, in reciprocal vectors of the primitive cell."""
    path: tuple[tuple[str, str], ...]
    """Segments of the path, by the names of their ends."""


def standardised(structure: Structure, symprec: float) -> Standard:
    """Find the standard primitive cell of a crystal.

    Args:
        structure: crystal that repeats along all three vectors.
        symprec: distance (Å) up to which atoms count as equivalent; positions are moved onto their symmetric places.

    Raises:
        ValueError: no crystal, an electric field, isotopes mixed within an element, or no symmetry within ``symprec``.
    """
    import seekpath
    import spglib

    check_crystal(structure)
    scaled = structure.positions @ np.linalg.inv(structure.cell)
    cell: Any = (structure.cell, scaled, structure.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=symprec)
    if found is None:
        raise ValueError(
            f"{structure.name}: spglib finds no symmetry within symprec {symprec:g} Å; choose a smaller symprec, and see "
            "whether two atoms are at one place"
        )
    path = seekpath.get_path(cell, symprec=symprec)
    numbers = np.asarray(path["primitive_types"])
    lattice = np.asarray(path["primitive_lattice"])
    share = len(numbers) / len(structure)
    primitive = Structure(
        numbers, np.asarray(path["primitive_positions"]) @ lattice, lattice, np.ones(3, bool), charge=structure.charge * share,
        spin=structure.spin * share, masses=None if structure.masses is None else element_masses(structure)[numbers],
        head=structure.head, source=structure.name,
    )  # fmt: skip
    counts = np.linalg.inv(np.asarray(path["primitive_transformation_matrix"], float))
    points = {name: (float(x), float(y), float(z)) for name, (x, y, z) in path["point_coords"].items()}
    segments = tuple((str(a), str(b)) for a, b in path["path"])
    symbol = f"{found.international} ({found.number})"
    return Standard(primitive, np.rint(counts).astype(int), symbol, int(found.number), points, segments)


def check_crystal(structure: Structure) -> None:
    """Check that phonons of a structure are defined.

    Raises:
        ValueError: the structure does not repeat along three vectors, or is in an electric field.
    """
    if not structure.pbc.all() or structure.volume == 0:
        raise ValueError(
            f"{structure.name} does not repeat along all three vectors; `equipot vibrations` has the modes of molecules, "
            "surfaces and wires"
        )
    if structure.field.any():
        raise ValueError(
            f"{structure.name} is in an electric field, which the symmetry of its phonons would not see; remove it"
        )


def element_masses(structure: Structure) -> Float[np.ndarray, " elements"]:
    """Return the mass of each element (amu), by atomic number: those of the structure's atoms, else the standard ones.

    Raises:
        ValueError: atoms of one element that differ in mass.
    """
    from ase.data import atomic_masses

    table = np.array(atomic_masses)
    if structure.masses is not None:
        for z in np.unique(structure.numbers):
            own = structure.masses[structure.numbers == z]
            if np.ptp(own) > 1e-6:
                raise ValueError(
                    f"{structure.name}: atoms of one element (Z {z}) have masses from {own.min():g} to {own.max():g} amu, and "
                    "no symmetry; give all of them their mean"
                )
            table[z] = own[0]
    return table


def shortest_vector(cell: Float[np.ndarray, "3 3"]) -> float:
    """Return the length (Å) of the shortest lattice vector of a cell whose rows are vectors."""
    from ase.geometry import minkowski_reduce

    reduced, _ = minkowski_reduce(cell)
    return float(np.linalg.norm(reduced, axis=1).min())


def supercell_matrix(standard: Standard, length: float) -> Int[np.ndarray, "3 3"]:
    """Choose a supercell without a lattice vector that is shorter than ``length`` (Å).

    The choice is among multiples of the conventional cell, and equal multiples of the primitive one where that has all of its
    symmetry: the one with the fewest atoms.

    Returns:
        Vectors of the supercell, as counts of primitive vectors in columns: (a_s, b_s, c_s) = (a_p, b_p, c_p) M, as in phonopy.

    Raises:
        ValueError: more than ``MOST`` copies along a vector.
    """
    lattice = standard.primitive.cell
    conventional = standard.conventional.T @ lattice
    along = np.maximum(1, np.ceil(length / np.linalg.norm(conventional, axis=1) - 1e-6).astype(int))
    choices: list[Int[np.ndarray, "3 3"]] = []
    while along.max() <= MOST and not choices:
        found = standard.conventional @ np.diag(along)
        if shortest_vector(found.T @ lattice) >= length - 1e-6:
            choices.append(found)
        # Vectors that are not at right angles make shorter ones; equal vectors stay equal.
        along = along + 1
    times = int(np.ceil(length / shortest_vector(lattice) - 1e-6))
    if times <= MOST:
        choices.append(times * np.eye(3, dtype=int))
    if not choices:
        raise ValueError(
            f"a supercell of length {length:g} Å has more than {MOST} copies of the cell along a vector; choose less"
        )
    return min(choices, key=lambda matrix: abs(round(np.linalg.det(matrix))))


def phonopy_atoms(structure: Structure) -> Any:
    """Convert to phonopy's atoms, with the masses of ASE where the structure has none of its own (amu)."""
    from ase.data import chemical_symbols
    from phonopy.structure.atoms import PhonopyAtoms

    scaled = structure.positions @ np.linalg.inv(structure.cell)
    names = [chemical_symbols[z] for z in structure.numbers]
    return PhonopyAtoms(
        symbols=names, scaled_positions=scaled, cell=structure.cell, masses=element_masses(structure)[structure.numbers]
    )


def as_structure(atoms: Any, like: Structure) -> Structure:
    """Convert phonopy's atoms, with charge and spin in proportion to those of another structure, and its head."""
    times = len(atoms) / len(like)
    masses = None if like.masses is None else np.asarray(atoms.masses)
    return Structure(
        atoms.numbers, atoms.positions, atoms.cell, np.ones(3, bool), charge=like.charge * times, spin=like.spin * times,
        masses=masses, head=like.head, source=f"a supercell of {like.name}",
    )  # fmt: skip
