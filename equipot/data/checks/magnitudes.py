"""Find labels of impossible size, and name the unit that would explain them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from equipot import quantities, units
from equipot.data.checks.report import ERROR, WARNING, Problem
from equipot.structure import Structure

SAMPLE = 200
"""Number of frames of a file that are examined."""
THOMAS_FERMI = 0.7687 * units.hartree
"""eV: an atom has a total energy of about -0.7687 Z^(7/3) Hartree, all electrons included; -0.5 for hydrogen."""
ENERGY = 1.6
"""Largest ratio of a total energy to the sum of these energies; relativity and bonds add less."""
FORCE = 20.0
"""Largest typical force component of bonded matter, eV/Å."""
HOT = 10.0
"""Typical force component (eV/Å) beyond which only shocked or very hot matter has forces; a molecule at 500 K has about 1."""
STRESS = 100.0
"""Largest typical stress component, eV/Å^3; 16 TPa."""
TYPICAL = {"forces": 1.0, "stress": 0.03}
"""Typical components of forces (eV/Å) and stress (eV/Å^3)."""
UNITS = {
    "energy": {"kcal/mol": units.kcal_per_mol, "kJ/mol": units.kJ_per_mol, "meV": 1e-3},
    "forces": {"kcal/mol/Å": units.kcal_per_mol, "kJ/mol/Å": units.kJ_per_mol, "meV/Å": 1e-3},
    "stress": {"GPa": units.GPa, "kbar": units.kbar, "bar": units.bar, "Pa": 1e-9 * units.GPa},
}


def magnitudes(structures: Sequence[Structure], files: Mapping[str, Sequence[int]]) -> Iterator[Problem]:
    """Find labels whose size is impossible.

    Args:
        structures: a set of frames.
        files: indices of the frames of each file.
    """
    for file, rows in files.items():
        chosen = np.random.Generator(np.random.PCG64(0)).permutation(rows)[:SAMPLE]
        sample = [structures[int(k)] for k in chosen]
        yield from _energies(file, sample)
        yield from _typical(file, sample, "forces", FORCE, "eV/Å", "force_size", HOT)
        yield from _typical(file, sample, "stress", STRESS, "eV/Å^3", "stress_size")


def _energies(file: str, sample: Sequence[Structure]) -> Iterator[Problem]:
    """Find total energies far below those of an all-electron calculation."""
    held = [s for s in sample if s.energy is not None and np.isfinite(s.energy)]
    of_electrons = lambda s: THOMAS_FERMI * np.sum(s.numbers.astype(float) ** (7 / 3)) + 1e-9
    ratios = np.array([abs(s.labels[quantities.ENERGY]) / of_electrons(s) for s in held])
    if not len(held) or np.median(ratios) < ENERGY:
        return
    worst = held[int(np.argmax(ratios))]
    ratio = float(np.median(ratios))
    fitting = [name for name, factor in UNITS["energy"].items() if ratio * factor < 1.1]
    what = f"the energy is {worst.energy:.6g} eV, {ratio:.0f} times that of all electrons of its atoms"
    yield Problem(ERROR, "energy_size", worst.name, what, _remedy("energy", fitting))


def _typical(
    file: str, sample: Sequence[Structure], label: str, limit: float, unit: str, kind: str, unusual: float = np.inf
) -> Iterator[Problem]:
    """Find forces or stresses whose typical size is beyond a limit, which is an error, or beyond what is usual, a warning."""
    held = [value for s in sample if (value := getattr(s, label)) is not None and np.all(np.isfinite(value))]
    sizes = [float(np.sqrt(np.mean(value**2))) for value in held if value.any()]
    if not sizes or np.median(sizes) < min(limit, unusual):
        return
    size = float(np.median(sizes))
    far = {name: abs(np.log(size * factor / TYPICAL[label])) for name, factor in UNITS[label].items()}
    near = [name for name in sorted(far, key=lambda name: far[name]) if far[name] < min(far.values()) + 0.5]
    what = f"components of the {label} are typically {size:.3g} {unit}, beyond what"
    # Two atoms alone may be brought as close as one likes, to learn the repulsion of nuclei.
    dimers = np.mean([len(s) == 2 and not s.pbc.any() for s in sample]) > 0.5
    if size >= limit and not dimers:
        yield Problem(ERROR, kind, file, f"{what} bonded matter has ({limit:g})", _remedy(label, near))
    else:
        remedy = f"if they are in {' or '.join(near)}, set data.units.{label} to that, and look at the energies, too"
        usual = min(limit, unusual)
        yield Problem(WARNING, kind, file, f"{what} any but very hot or dense matter has ({usual:g})", remedy)


def _remedy(label: str, near: Sequence[str]) -> str:
    """Write the remedy for a label in a wrong unit; ``near`` are likely units."""
    return f"it looks like {' or '.join(near)}: set data.units.{label} to that" if near else f"state data.units.{label}"
