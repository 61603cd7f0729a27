"""Comparison of a converted potential with reference values of the original program for a set of structures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from equipot.evaluation import evaluate
from equipot.potential import Potential
from equipot.structure import Structure

__all__ = ["Certificate", "certify", "read_references"]

LIMITS = {"float64": (1e-6, 1e-5, 1e-7), "float32": (1e-5, 1e-3, 1e-5)}
"""Largest allowed deviations of energy (eV/atom), forces (eV/Å) and stress (eV/Å^3), by the precision of the potential."""


@dataclass(frozen=True)
class Certificate:
    """Largest deviations of a potential from reference values."""

    energy: float
    """Deviation of the energy (eV/atom)."""
    forces: float
    """Deviation of a component of the forces (eV/Å)."""
    stress: float | None
    """Deviation of a component of the stress (eV/Å^3); None without a periodic structure."""
    worst: str
    """Name of the structure with the largest deviation of forces."""
    structures: int
    """Number of structures."""
    elements: int
    """Number of different elements in the structures."""
    dtype: str
    """Precision of the potential."""
    by: str
    """Program that computed the reference values, and its version."""

    @property
    def passed(self) -> bool:
        """Whether all deviations are within ``LIMITS``."""
        found = (self.energy, self.forces, self.stress or 0.0)
        # A comparison with NaN is false: a deviation of NaN does not pass.
        return all(value <= limit for value, limit in zip(found, LIMITS[self.dtype], strict=True))

    def __str__(self) -> str:
        stress = "" if self.stress is None else f", {self.stress:.1e} eV/Å^3"
        return (
            f"{self.energy:.1e} eV/atom, {self.forces:.1e} eV/Å{stress} from {self.by} "
            f"on {self.structures} structures of {self.elements} elements, in {self.dtype}"
        )


RECORD = {"name", "numbers", "positions", "cell", "pbc", "energy", "forces", "stress"}
"""Keys of the record of each structure."""


def read_references(path: Path) -> dict[str, Any]:
    """Read a file of reference values that a script in ``benchmarks/parity`` wrote.

    Raises:
        ValueError: the file does not hold reference values; the message names the missing keys.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        lacking = {"provenance", "structures"} - values.keys()
        lacking |= {"dtype"} - values["provenance"].keys() if not lacking else set()
        lacking |= set().union(*(RECORD - record.keys() for record in values["structures"])) if not lacking else set()
        if not lacking and values["structures"]:
            return values
        fault = f"it lacks {', '.join(sorted(lacking)) or 'structures'}"
    except (ValueError, AttributeError, TypeError) as error:
        fault = str(error)
    raise ValueError(f"{path}: not reference values as the scripts in benchmarks/parity write them ({fault})")


def certify(potential: Potential, references: Mapping[str, Any], dtype: str = "float64") -> Certificate:
    """Compare a potential with reference values. The setting of JAX's precision in the process is not changed.

    Args:
        potential: Potential to compare.
        references: ``structures``, a list of records with energy (eV), forces (eV/Å) and stress (eV/Å^3, or None), and
            ``provenance``, as from ``read_references``.
        dtype: Precision of the potential in the comparison.
    """
    with jax.enable_x64(dtype == "float64"):
        return _compare(potential, references, dtype)


def _compare(potential: Potential, references: Mapping[str, Any], dtype: str) -> Certificate:
    """Compute the largest deviations, with 64-bit JAX enabled where ``dtype`` needs this."""
    cast = lambda x: np.asarray(x, dtype) if np.issubdtype(np.asarray(x).dtype, np.floating) else np.asarray(x)
    potential = potential.replace(variables=jax.tree.map(cast, potential.variables))
    records = references["structures"]
    energy, stress, forces = [], [], {}
    for solid in (True, False):
        group = [record for record in records if (record["stress"] is not None) == solid]
        if group:
            for record, (e, f, s) in zip(group, _answers(potential, group, solid), strict=True):
                energy.append(abs(e - record["energy"]) / len(record["numbers"]))
                forces[record["name"]] = np.abs(f - np.asarray(record["forces"])).max()
                if solid:
                    stress.append(np.abs(s - np.asarray(record["stress"])).max())
    worst = max(forces, key=forces.__getitem__)
    return Certificate(
        float(np.max(energy)), float(forces[worst]), float(np.max(stress)) if stress else None, worst, len(records),
        len({z for record in records for z in record["numbers"]}), dtype, _source(references["provenance"]),
    )  # fmt: skip


def _answers(potential: Potential, group: Sequence[Mapping[str, Any]], solid: bool) -> list[tuple[float, np.ndarray, Any]]:
    """Compute energy (eV), forces (eV/Å) and stress (eV/Å^3; None unless ``solid``) of each record in one batch."""
    structures = [
        Structure(np.array(r["numbers"]), np.array(r["positions"]), np.array(r["cell"]), np.array(r["pbc"]), source=r["name"])
        for r in group
    ]
    out = evaluate(potential, structures, ("energy", "forces", "stress") if solid else ("energy", "forces"))
    energy = np.asarray(out.energy, float)
    ends = np.cumsum([len(structure) for structure in structures])
    forces = np.split(np.asarray(out.forces)[: ends[-1]], ends[:-1])
    stress = np.asarray(out.stress) if solid else [None] * len(group)
    return [(float(energy[k]), forces[k], stress[k]) for k in range(len(group))]


def _source(provenance: Mapping[str, Any]) -> str:
    """Return the name, version and precision of the program that computed the reference values."""
    known = [f"{name} {provenance[name]}" for name in ("sevenn", "nequix", "mace-torch", "nequip") if name in provenance]
    return f"{', '.join(known)} ({provenance['dtype']})"
