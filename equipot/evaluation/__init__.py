"""Evaluate potentials on ASE atoms, structures, or lists of either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equipot.arrays import AnyNumber
from equipot.data.batch import pad
from equipot.data.method import Runner, runner_of
from equipot.evaluation.batched import Job, TooLargeError, belongs_to_graphs, evaluate_in_batches
from equipot.evaluation.method import check_wanted, with_method
from equipot.graph import Graph
from equipot.isolated_atoms import isolated_atom_energy
from equipot.neighbors import neighbor_list
from equipot.observables import Observables
from equipot.posterior import check_estimates
from equipot.potential import Potential
from equipot.potential import evaluate as evaluate_graph
from equipot.quantities import BORN_CHARGES, DIPOLE, NOVELTY, POLARIZABILITY, QUADRUPOLE, RESULTS, among
from equipot.second_derivatives import hessian
from equipot.structure import Structure

__all__ = [
    "TooLargeError", "as_structures", "evaluate", "evaluate_each", "evaluate_ensemble", "hessian_of", "not_finite",
    "one_structure",
]  # fmt: skip

_evaluate = jax.jit(evaluate_graph, static_argnames="want")
_hessian = jax.jit(hessian, static_argnames="batch_size")


def as_structures(systems: Any) -> list[Structure]:
    """Convert one ``ase.Atoms``, one ``Structure``, or a sequence of either to a list of structures.

    Raises:
        ValueError: any other type.
    """
    if isinstance(systems, Structure):
        return [systems]
    if hasattr(systems, "get_positions"):
        return [Structure.from_ase(systems)]
    if isinstance(systems, Sequence) and not isinstance(systems, str):
        return [structure for system in systems for structure in as_structures(system)]
    raise ValueError(f"expected ase.Atoms, a Structure, a Graph, or a list of them; got {type(systems).__name__}")


def one_structure(system: Any, what: str) -> Structure:
    """Convert one ``ase.Atoms`` or one ``Structure`` to a structure.

    Args:
        system: The system, or a list of one.
        what: Beginning of the message of an error, such as "a Hessian is".

    Raises:
        ValueError: several systems, or any other type.
    """
    structures = as_structures(system)
    if len(structures) != 1:
        raise ValueError(f"{what} of one structure; got {len(structures)}")
    return structures[0]


def evaluate(
    potential: Potential,
    systems: Any,
    want: Sequence[str] | None = None,
    batch_size: int | None = None,
    method: Any = None,
) -> Observables:
    """Compute energy (eV), forces (eV/Å), stress (eV/Å^3) and other observables of one or several systems.

    Total energies include E0 of the isolated atoms, added in double precision.

    Args:
        systems: an ``ase.Atoms``, a ``Structure``, a list of systems of any sizes, or a padded ``Graph``.
        want: names of the observables; None for energy, forces and, if every system has a volume, stress.
        batch_size: systems per batch; None to choose by memory and speed. Results depend on the batch by rounding only.
        method: ASE calculator of the method that the potential is a correction to, or its ``package.module:Class``; None for
            one that ``data.subtract`` knows by name, or for a potential that is no correction.

    Returns:
        Observables in the order of the systems: (systems,) energy, (systems, 3, 3) stress, and per-atom results of all systems
        concatenated, such as (atoms, 3) forces; see ``evaluate_each`` for separate results.

    Raises:
        ValueError: an unknown element, an observable that the potential lacks, a stress of a system without a volume, a
            result that is not finite, or a method that is missing.
        TooLargeError: a single system does not fit into memory.
    """
    if isinstance(systems, Graph):
        if potential.metadata.subtracted is not None:
            raise ValueError(f"a graph has no {potential.metadata.subtracted.name} to be added; give structures or ASE atoms")
        want = (want,) if isinstance(want, str) else want
        want = tuple(want or ("energy", "forces", "stress"))
        return _of_graph(potential, systems, jax.device_get(_evaluate(potential, systems, want=want)), want)
    structures = as_structures(systems)
    want = _wanted(structures, want)
    runner = runner_of(potential.metadata.subtracted, method)
    return _joined(_each([potential], structures, want, batch_size, runner), 0, potential)


def evaluate_each(
    potential: Potential,
    systems: Any,
    want: Sequence[str] | None = None,
    batch_size: int | None = None,
    method: Any = None,
) -> list[Observables]:
    """Compute observables of several systems, separately for each: () energy, (atoms, 3) forces, (3, 3) stress, ...

    Arguments are those of ``evaluate``; ``want`` defaults to energy, forces and stress, and the stress of a system without a
    volume is None.

    Raises:
        ValueError, TooLargeError: see ``evaluate``.
    """
    want = (want,) if isinstance(want, str) else tuple(want or ("energy", "forces", "stress"))
    structures = as_structures(systems)
    found = _each([potential], structures, want, batch_size, runner_of(potential.metadata.subtracted, method))
    return [out if _has_volume(s) else out.replace(stress=None) for s, out in zip(structures, found, strict=True)]


def evaluate_ensemble(
    potentials: Sequence[Potential],
    systems: Any,
    want: Sequence[str] | None = None,
    batch_size: int | None = None,
    method: Any = None,
) -> Observables:
    """Evaluate several potentials of one architecture at once; every result has a leading axis of potentials.

    >>> out = equipot.evaluate_ensemble([equipot.load(name) for name in names], frames)
    >>> out.energy.std(axis=0), out.forces.std(axis=0)  # (graphs,) eV, (atoms, 3) eV/Å

    The potentials share neighbour lists and one compiled function, which maps over their stacked variables.

    Raises:
        ValueError: no potentials, potentials that differ in hyper-parameters, elements or precision, or as ``evaluate``.
        TooLargeError: see ``evaluate``.
    """
    potentials = list(potentials)
    if not potentials:
        raise ValueError("an ensemble needs at least one potential")
    kind = lambda p: (p.term, p.elements, p.dtype, jax.tree.structure(p.variables), p.metadata.subtracted)
    for k, potential in enumerate(potentials):
        if kind(potential) != kind(potentials[0]):
            raise ValueError(
                f"potential {k} of the ensemble differs from the first in its hyper-parameters, elements, precision or "
                "subtracted method; evaluate it by itself"
            )
    structures = as_structures(systems)
    runner, wanted = runner_of(potentials[0].metadata.subtracted, method), _wanted(structures, want)
    if estimates := [row.name for row in among(wanted, (*RESULTS, *potentials[0].provides)) if row.of_posterior]:
        raise ValueError(
            f"{', '.join(estimates)}: potentials that are evaluated at once have no estimates of uncertainty of their own; "
            "evaluate each by itself, or join them by equipot.uncertainty.committee"
        )
    found = _each(potentials, structures, wanted, batch_size, runner, ensemble=True)
    return _joined(found, 1, potentials[0])


def _wanted(structures: Sequence[Structure], want: Sequence[str] | None) -> tuple[str, ...]:
    """Return the observables to evaluate for all structures.

    Raises:
        ValueError: a stress of a structure without a volume.
    """
    open_ones = [s for s in structures if not _has_volume(s)]
    if want is None:
        want = ("energy", "forces") if open_ones else ("energy", "forces", "stress")
    want = (want,) if isinstance(want, str) else tuple(want)
    if "stress" in want and open_ones:
        what = "has a lattice vector of length zero" if open_ones[0].pbc.any() else "is isolated"
        raise ValueError(f"{open_ones[0].name} {what}, and so no volume and no stress; leave it out of `want`")
    return want


def _has_volume(structure: Structure) -> bool:
    return bool(structure.pbc.any()) and structure.volume > 0


def _each(
    potentials: Sequence[Potential],
    structures: Sequence[Structure],
    want: tuple[str, ...],
    batch_size: int | None,
    runner: Runner | None,
    ensemble: bool = False,
) -> list[Observables]:
    """Evaluate each structure, add E0 and the subtracted method; results of an ensemble have a leading axis of potentials.

    Raises:
        ValueError: no structures, an unknown element, or a result that is not finite.
    """
    if not structures:
        raise ValueError("there are no systems to evaluate")
    check_wanted(runner, want)
    for potential in potentials:
        potential.correction.check(structures)
    model = potentials[0]
    estimated = [row for row in among(want, (*RESULTS, *model.provides)) if row.of_posterior]
    check_estimates(model.posterior, estimated, structures)
    if ensemble:
        model = model.replace(variables=jax.tree.map(lambda *x: jnp.stack(x), *(p.variables for p in potentials)))
    found = dict(evaluate_in_batches(Job(model, want, len(potentials) if ensemble else 0), structures, batch_size))
    out = []
    for k, structure in enumerate(structures):
        mine = found.pop(k)
        if not all(np.isfinite(value).all() for value in _results(mine, structure)):
            raise ValueError(without_moment(mine, structure) or not_finite(structure))
        tables = [p.metadata.isolated_atom_energies(structure.head) for p in potentials]
        e0 = np.stack([isolated_atom_energy(structure.numbers, table) for table in tables])
        e0 = e0 if ensemble else e0[0]
        out.append(with_method(_total(mine, e0.sum(axis=-1), e0, want), structure, runner))
    return out


def _total(out: Observables, e0: np.ndarray, e0_of_atoms: np.ndarray, want: tuple[str, ...]) -> Observables:
    """Add total energies to the results of the device.

    Args:
        e0: sum of E0 of each system, eV.
        e0_of_atoms: E0 of each atom, eV.
    """
    energy = out.interaction + e0 if "energy" in want else None
    return out.replace(energy=energy, energies=None if out.interactions is None else out.interactions + e0_of_atoms)


def _of_graph(potential: Potential, graph: Graph, out: Observables, want: tuple[str, ...]) -> Observables:
    """Add total energies to the results of a padded graph."""
    mask, owner = np.asarray(graph.node_mask), np.asarray(graph.node_graph)
    head = np.zeros(len(mask), int) if graph.head is None else np.asarray(graph.head)[owner]
    e0 = np.zeros(len(mask))
    for k in np.unique(head):
        unknown = dict.fromkeys(np.unique(graph.numbers).tolist(), np.nan)
        known = unknown | potential.metadata.isolated_atom_energies(int(k)) | {0: 0.0}
        e0 += np.where(mask & (head == k), isolated_atom_energy(np.asarray(graph.numbers), known), 0)
    return _total(out, np.bincount(owner, e0, len(graph.graph_mask)), e0, want)


def _results(out: Observables, structure: Structure) -> list[AnyNumber]:
    """List the results that are defined for a structure: without a volume, no stress. A novelty may be without limit."""
    lacking = () if _has_volume(structure) else tuple(row.name for row in RESULTS if row.needs_volume)
    meaningless = (*lacking, NOVELTY.name)
    return [value for name, value in out.items() if name not in meaningless]


def _joined(each: Sequence[Observables], axis: int, potential: Potential) -> Observables:
    """Join the results of several systems: stack those per graph, concatenate those per atom."""
    values = [dict(out.items()) for out in each]
    join = lambda name: np.stack if belongs_to_graphs(name, potential) else np.concatenate
    return Observables.of({name: join(name)([of_one[name] for of_one in values], axis=axis) for name in values[0]})


def without_moment(out: Observables, structure: Structure) -> str:
    """Say that a system which repeats has no moment of charge, where that is all that is not finite; empty where it is not."""
    moments = {row.name for row in (DIPOLE, QUADRUPOLE, BORN_CHARGES, POLARIZABILITY)}
    wrong = {name for name, value in out.items() if not np.isfinite(value).all()}
    if not (structure.pbc.any() and wrong and wrong <= moments):
        return ""
    return (
        f"{structure.name} repeats, so that these charges have no {', no '.join(sorted(wrong))}; take charges that flow (Flows "
        "or Polarizable), or leave it out of `want`; a quadrupole moment is that of an isolated system only"
    )


def not_finite(structure: Structure) -> str:
    """Write the message for a result that is not finite; names two atoms closer than 0.1 Å, if any."""
    what = f"{structure.name}: a result (energy, forces or what follows from them) is not finite"
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, 0.1)
    if not len(edges.centers):
        return f"{what}; the potential knows nothing like it"
    return f"{what}: atoms {edges.centers[0]} and {edges.neighbors[0]} are closer than 0.1 Å"


def hessian_of(potential: Potential, system: Any, batch_size: int = 32) -> np.ndarray:
    """Compute the Hessian d^2E/dr dr of one system: (atoms, 3, atoms, 3), eV/Å^2.

    Args:
        batch_size: rows of the Hessian computed at once.

    Raises:
        ValueError: several systems, an unknown element, or a result that is not finite.
    """
    structures = as_structures(system)
    if len(structures) != 1:
        raise ValueError(f"a Hessian is of one system; got {len(structures)}")
    potential.check(structures)
    graph = pad(structures, potential.cutoff, dtype=potential.dtype, extent=potential.extent(structures))
    found = np.asarray(_hessian(potential, graph, batch_size=batch_size))
    if not np.isfinite(found).all():
        raise ValueError(not_finite(structures[0]))
    return found
