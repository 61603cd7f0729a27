"""Potentials applied to what people have at hand: ASE atoms, structures, lists of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from equipot.data.batch import pad
from equipot.graph import Graph
from equipot.neighbors import neighbor_list
from equipot.potential import Observables, Potential, free_atoms, hessian
from equipot.potential import evaluate as evaluate_graph
from equipot.structure import Structure

_evaluate = jax.jit(evaluate_graph, static_argnames="want")
_hessian = jax.jit(hessian, static_argnames="batch_size")


def as_structures(systems: Any) -> list[Structure]:
    """A list of structures from one ``ase.Atoms``, one ``Structure``, or a sequence of either."""
    if isinstance(systems, Structure):
        return [systems]
    if hasattr(systems, "get_positions"):
        return [Structure.from_ase(systems)]
    if isinstance(systems, Sequence) and not isinstance(systems, str):
        return [structure for system in systems for structure in as_structures(system)]
    raise ValueError(f"expected ase.Atoms, a Structure, a Graph, or a list of them; got {type(systems).__name__}")


def evaluate(potential: Potential, systems: Any, want: Sequence[str] | None = None) -> Observables:
    """Energy (eV), forces (eV/Å), stress (eV/Å^3) and more of one or several systems, in one batch.

    ``systems`` is an ``ase.Atoms``, a ``Structure``, a list of them, or a ``Graph`` (evaluated as it is, on the device).
    ``want`` defaults to energy, forces, and stress where every system has a volume. Per-atom results of several systems follow
    one another. Energies of the free atoms are added in double precision, whatever the potential's own precision.

    Raises:
        ValueError: an unknown element, something in ``want`` that the potential lacks, a stress of a system without a volume,
            a result that is not finite.
    """
    want = (want,) if isinstance(want, str) else want
    if isinstance(systems, Graph):
        return _evaluate(potential, systems, want=tuple(want or ("energy", "forces", "stress")))
    structures = as_structures(systems)
    potential.check(structures)
    open_ones = [s for s in structures if not (s.pbc.any() and s.volume > 0)]
    if want is None:
        want = ("energy", "forces") if open_ones else ("energy", "forces", "stress")
    if "stress" in want and open_ones:
        raise ValueError(f"{open_ones[0].name}: an isolated system has no stress; leave it out of `want`")
    graph = pad(structures, potential.cutoff, dtype=potential.dtype)
    out = jax.tree.map(np.asarray, _evaluate(without_free_atoms(potential), graph, want=tuple(want)))
    for value, owner in ((out.energy, np.arange(len(structures))), (out.forces, graph.node_graph)):
        if value is not None and not np.isfinite(value).all():
            raise ValueError(not_finite(structures[int(owner[np.argwhere(~np.isfinite(value))[0, 0]])]))
    free = free_atoms(potential.metadata, graph.numbers)
    per_graph = np.bincount(graph.node_graph, weights=free, minlength=len(structures))
    add = lambda value, offset: None if value is None else value + offset
    return out.replace(energy=add(out.energy, per_graph), energies=add(out.energies, free))


def not_finite(structure: Structure) -> str:
    """What to say of a structure whose energy or forces are not finite: which atoms are too close, if that is why."""
    what = f"{structure.name}: energy or forces are not finite"
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, 0.1)
    if not len(edges.centers):
        return f"{what}; the potential knows nothing like it"
    return f"{what}: atoms {edges.centers[0]} and {edges.neighbors[0]} are closer than 0.1 Å"


def without_free_atoms(potential: Potential) -> Potential:
    """The same potential with free atoms at zero energy, for whoever adds them in double precision."""
    zero = tuple((z, 0.0) for z in potential.elements)
    return potential.replace(metadata=dataclasses.replace(potential.metadata, atomic_energies=zero))


def hessian_of(potential: Potential, system: Any, batch_size: int = 32) -> np.ndarray:
    """d^2E/dr dr of one system, (atoms, 3, atoms, 3) in eV/Å^2."""
    (structure,) = as_structures(system)
    potential.check([structure])
    graph = pad([structure], potential.cutoff, dtype=potential.dtype)
    return np.asarray(_hessian(potential, graph, batch_size=batch_size))
