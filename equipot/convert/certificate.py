"""The last step of a conversion: what the converted potential says, beside what its source said of the same structures."""

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

LIMITS = {"float64": (1e-6, 1e-5, 1e-7), "float32": (1e-5, 1e-3, 1e-5)}
"""Largest deviations allowed, eV/atom, eV/Å and eV/Å^3, by the precision that the potential computes in."""


@dataclass(frozen=True)
class Certificate:
    """Largest deviations from the reference values."""

    energy: float
    """eV/atom."""
    forces: float
    """eV/Å."""
    stress: float | None
    """eV/Å^3; None without a periodic structure."""
    worst: str
    """The structure whose forces deviate most."""
    structures: int
    elements: int
    dtype: str
    by: str
    """What computed the reference values."""

    @property
    def passed(self) -> bool:
        found = (self.energy, self.forces, self.stress or 0.0)
        # A comparison with NaN is false: what is not a number does not pass.
        return all(value <= limit for value, limit in zip(found, LIMITS[self.dtype], strict=True))

    def __str__(self) -> str:
        stress = "" if self.stress is None else f", {self.stress:.1e} eV/Å^3"
        return (
            f"{self.energy:.1e} eV/atom, {self.forces:.1e} eV/Å{stress} from {self.by} "
            f"on {self.structures} structures of {self.elements} elements, in {self.dtype}"
        )


RECORD = {"name", "numbers", "positions", "cell", "pbc", "energy", "forces", "stress"}
"""What is said of each structure."""


def read_references(path: Path) -> dict[str, Any]:
    """Reference values as ``benchmarks/parity`` writes them.

    Raises:
        ValueError: the file is not one of those; what it lacks is named.
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
    """Compare with ``references``: records of structures with energy (eV), forces (eV/Å) and stress (eV/Å^3, or None).

    The precision of the calling process is left as it is.
    """
    with jax.enable_x64(dtype == "float64"):
        return _compare(potential, references, dtype)


def _compare(potential: Potential, references: Mapping[str, Any], dtype: str) -> Certificate:
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
    """Energy, forces and stress of each record, from one batch."""
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
    """The program and its version."""
    known = [f"{name} {provenance[name]}" for name in ("sevenn", "nequix", "mace-torch", "nequip") if name in provenance]
    return f"{', '.join(known)} ({provenance['dtype']})"
