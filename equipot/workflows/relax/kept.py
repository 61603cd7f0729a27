"""Relaxations whose results are kept in a journal, so that work goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.journal import Journal
from equipot.workflows.relax import RelaxConfig, Relaxed, relax_each

Say = Callable[[int, int, str], None]
"""Called with the number of finished structures, that of all, and figures of those at work."""


def relax_kept(
    journal: Journal,
    name: str,
    potential: Potential,
    structures: Sequence[Structure],
    settings: RelaxConfig,
    say: Say | None = None,
) -> list[Relaxed]:
    """Relax structures that the journal does not have yet, each kept as soon as it is finished; see ``relax``.

    Args:
        journal: Where results are kept.
        name: Name of the structures in the journal, which their numbers follow.
        potential: Potential.
        structures: At least one.
        settings: Settings.
        say: Called with the number of finished structures, that of all, and figures of those at work.

    Raises:
        ValueError: as ``relax``.
    """
    of = [f"{name} {k}" for k in range(len(structures))]
    left = [k for k in range(len(structures)) if of[k] not in journal.done]

    def more(done: int, _: int, figures: str) -> None:
        if say is not None:
            say(len(structures) - len(left) + done, len(structures), figures)

    if left:
        for relaxed in relax_each(potential, [structures[k] for k in left], settings, say=more):
            journal.add(of[left[relaxed.index]], record(relaxed))
    return [restored(k, s, journal.done[of[k]]) for k, s in enumerate(structures)]


def record(relaxed: Relaxed) -> dict[str, Any]:
    """Convert what was found of a structure to plain values."""
    s = relaxed.structure
    return {
        "converged": relaxed.converged,
        "reason": relaxed.reason,
        "energy_eV": relaxed.energy,
        "energy_per_atom_eV": relaxed.energy / len(s),
        "largest_force_eV_per_A": relaxed.fmax,
        "stress_error_GPa": relaxed.stress_error,
        "volume_A3": s.volume if s.pbc.all() else None,
        "space_group_kept": relaxed.group,
        "space_group_change": relaxed.group_change,
        "symmetry_broken": relaxed.broken,
        "evaluations": relaxed.evaluations,
        "hessian_products": relaxed.products,
        "positions_A": s.positions.tolist(),
        "cell_A": s.cell.tolist(),
        "forces_eV_per_A": np.asarray(s.forces).tolist(),
        "stress_eV_per_A3": None if s.stress is None else s.stress.tolist(),
        "trace": relaxed.trace.tolist(),
    }


def restored(index: int, given: Structure, found: Mapping[str, Any]) -> Relaxed:
    """Return a relaxed structure from its record."""
    labels = {"energy": found["energy_eV"], "forces": np.array(found["forces_eV_per_A"])}
    if found["stress_eV_per_A3"] is not None:
        labels["stress"] = np.array(found["stress_eV_per_A3"])
    return Relaxed(
        index=index,
        structure=given.replace(positions=np.array(found["positions_A"]), cell=np.array(found["cell_A"]), labels=labels),
        converged=found["converged"],
        reason=found["reason"],
        energy=found["energy_eV"],
        fmax=found["largest_force_eV_per_A"],
        stress_error=found["stress_error_GPa"],
        evaluations=found["evaluations"],
        products=found["hessian_products"],
        group=found["space_group_kept"],
        group_change=found["space_group_change"],
        broken=found["symmetry_broken"],
        trace=np.array(found["trace"]),
    )
