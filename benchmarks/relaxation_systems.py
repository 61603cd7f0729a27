"""Structures that are relaxed, and the Lennard-Jones potential of the clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2

ELEMENTS = {"H", "C", "N", "O"}
DISPLACED = 0.1
"""Standard deviation of each coordinate of molecules and crystals (Å)."""
STRAINED = 0.03
"""Standard deviation of each component of the strain of crystals."""
CRYSTALS: tuple[tuple[str, str, float | None], ...] = (
    ("Cu", "fcc", None), ("Al", "fcc", None), ("Ni", "fcc", None), ("Pd", "fcc", None), ("Fe", "bcc", None), ("W", "bcc", None),
    ("Na", "bcc", None), ("Nb", "bcc", None), ("Mg", "hcp", None), ("Ti", "hcp", None), ("Zn", "hcp", None),
    ("Si", "diamond", None), ("Ge", "diamond", None), ("C", "diamond", None), ("NaCl", "rocksalt", 5.69),
    ("MgO", "rocksalt", 4.25), ("LiF", "rocksalt", 4.06), ("GaAs", "zincblende", 5.75), ("SiC", "zincblende", 4.38),
    ("CsCl", "cesiumchloride", 4.2),
)  # fmt: skip
"""Formula, structure and lattice constant (Å) where ASE has none."""
ARGON = {"epsilon": 0.0104, "sigma": 3.40, "cutoff": 60.0}
"""Potential of ``many``: eV, Å, and a cutoff (Å) beyond the largest cluster, so that nothing is cut off or switched."""
REDUCED = {"epsilon": 1.0, "sigma": 1.0, "cutoff": 30.0}
"""Potential of ``lj38``, whose units are epsilon and sigma."""
RADIUS, PACKED, NEAR, FAR = 0.31, 0.1, 0.8, 1.3
"""OptBench's clusters: radius of the atoms (sigma), share of the box that they fill, nearest distance in units of two radii."""


def molecules(count: int) -> dict[str, Atoms]:
    """Return displaced molecules of H, C, N and O with closed shells, drawn from the G2 set."""

    def fits(name: str) -> bool:
        atoms = molecule(name)
        closed = not atoms.get_initial_magnetic_moments().any() and atoms.numbers.sum() % 2 == 0
        return len(atoms) > 2 and set(atoms.symbols) <= ELEMENTS and closed

    there = [name for name in g2.names if fits(name)]
    chosen = [there[k] for k in np.random.default_rng(0).permutation(len(there))[:count]]
    return {name: shaken(molecule(name), k) for k, name in enumerate(chosen)}


def crystals(count: int) -> dict[str, Atoms]:
    """Return strained and rattled cells of 2 to 8 atoms."""
    out = {}
    for k, (formula, structure, a) in enumerate(CRYSTALS[:count]):
        atoms = bulk(formula, structure, a=a) * (2, 1, 1) if structure == "hcp" else bulk(formula, structure, a=a, cubic=True)
        strain = np.random.default_rng(1000 + k).normal(0, STRAINED, (3, 3))
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        out[formula] = shaken(atoms, k)
    return out


def shaken(atoms: Atoms, seed: int) -> Atoms:
    """Return a copy with displaced atoms and without initial charges and moments."""
    moved = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moved.positions += np.random.default_rng(seed).normal(0, DISPLACED, moved.positions.shape)
    return moved


def random_cluster(rng: np.random.Generator, atoms: int = 38) -> np.ndarray:
    """Return positions (atoms, 3) in units of sigma, by the recipe of OptBench.

    Atoms are put one by one at random into a cube of which they fill a tenth, where the nearest other atom is 0.8 to 1.3 times
    twice the radius of hydrogen away (bin/random_cluster.py of github.com/henkelmangroup/optbench; the files of its clusters
    name hydrogen, and are read as units of sigma).
    """
    found = np.zeros((1, 3))
    while len(found) < atoms:
        box = ((len(found) + 1) * 4 / 3 * np.pi * RADIUS**3 / PACKED) ** (1 / 3)
        place = rng.uniform(-box / 2, box / 2, 3)
        nearest = np.linalg.norm(found - place, axis=1).min()
        if NEAR * 2 * RADIUS < nearest < FAR * 2 * RADIUS:
            found = np.concatenate([found, place[None]])
    return found


def lj38(count: int) -> list[Atoms]:
    """Return random starts of 38 atoms."""
    return [Atoms("Ar38", random_cluster(np.random.default_rng(k))) for k in range(count)]


def many(count: int) -> list[Atoms]:
    """Return compact clusters of 10 to 40 atoms: the atoms of an fcc crystal around a random point, displaced by 0.3 Å."""
    crystal, out = bulk("Ar", "fcc", a=5.4, cubic=True) * (6, 6, 6), []
    for k in range(count):
        rng = np.random.default_rng(k)
        middle = crystal.positions.mean(axis=0) + rng.uniform(-2, 2, 3)
        order = np.argsort(np.linalg.norm(crystal.positions - middle, axis=1))
        positions = crystal.positions[order[: rng.integers(10, 41)]]
        out.append(Atoms(f"Ar{len(positions)}", positions + rng.normal(0, 0.3, positions.shape)))
    return out


def lennard_jones(epsilon: float, sigma: float, cutoff: float) -> Any:
    """Return a potential of clusters (eV, Å), in double precision."""
    import jax

    from equipot.data.batch import pad
    from equipot.metadata import Metadata
    from equipot.physics.lennard_jones import LennardJones
    from equipot.potential import Potential, initial
    from equipot.structure import Structure

    # The switching function begins beyond the clusters, too.
    term = LennardJones(cutoff=cutoff, epsilon=epsilon, sigma=sigma, onset=0.9)
    dimer = Structure.from_ase(Atoms("Ar2", [[0, 0, 0], [1.1 * sigma, 0, 0]]))
    variables = initial(term, jax.random.key(0), pad([dimer], term.cutoff))
    return Potential(term, variables, Metadata(atomic_energies=((18, 0.0),))).astype("float64")
