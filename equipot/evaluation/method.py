"""Add the method that a potential is a correction to: energies, forces and stresses, on the host in double precision."""

from __future__ import annotations

from collections.abc import Sequence

from equipot.data.method import Runner
from equipot.observables import Observables
from equipot.quantities import LABELLED, RESULTS
from equipot.structure import Structure


def check_wanted(runner: Runner | None, want: Sequence[str]) -> None:
    """Check that a correction to a method has the observables that are wanted. The energies of a method are those of whole
    systems: there are none of its atoms, nor virials.

    Raises:
        ValueError: an observable that the method does not give, or that is not the sum of two.
    """
    if runner is None:
        return
    for row in RESULTS:
        if row.name in want and row.energy_derivative and (row not in LABELLED or row.name not in runner.properties):
            raise ValueError(
                f"{row.name}: {runner.method.name}, which the potential is a correction to, gives none that could be added; "
                "leave it out of `want`, or take that of the correction alone, potential.correction"
            )


def with_method(out: Observables, structure: Structure, runner: Runner | None) -> Observables:
    """Add a method to the observables of a correction with E0; results of an ensemble have an axis of its members before.

    ``interaction``, the energy without E0 of the device, is that of the correction alone, and is left out.

    Raises:
        ValueError: the method does not apply to the structure, or failed.
    """
    if runner is None:
        return out
    own = runner.run(structure)
    found = {row.name: value + own[row] for row in LABELLED if row in own and (value := out[row]) is not None}
    return out.replace(interaction=None, **found)
