"""Train what stands beside frozen potentials in a sum on the residuals of the labels, without the potentials.

Frozen energies are the same in every step: they are subtracted once, and what is saved and reported is the whole sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from equipot.data.read import Dataset
from equipot.physics.imported import Nothing
from equipot.physics.sum import Sum
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.term import Term
from equipot.training.imported import Import


@dataclasses.dataclass(frozen=True, eq=False)
class Residual(Sequence):
    """Frames whose labels are those of the data less predictions."""

    frames: Sequence[Structure]
    predicted: Sequence[Structure]
    """The same frames with predictions as their labels."""

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, k: Any) -> Any:
        s, told = self.frames[k], self.predicted[k].labels
        return s.replace(labels={row: v - told[row] if row in told else v for row, v in s.labels.items()})


def stands_apart(term: Term, imports: Sequence[Import]) -> bool:
    """Whether all that potentials say in a model is a constant part of its energy."""
    mute = lambda potential: all(row.energy_part for row in potential.provides)
    alone = lambda part: part.frozen and len(part.scope) == 1 and mute(part.potential)
    return isinstance(term, Sum) and bool(imports) and all(map(alone, imports))


def without(potential: Potential, imports: Sequence[Import]) -> Potential:
    """Return the potential of a sum with nothing in place of its frozen potentials."""
    term, constants = potential.term, dict(potential.variables["constants"])
    assert isinstance(term, Sum), "only a sum has a rest"
    terms = list(term.terms)
    for part in imports:
        constants[part.scope[0]] = {}
        terms[int(part.scope[0].rpartition("_")[2])] = Nothing(min(t.cutoff for t in _others(term, imports)))
    rest = term.clone(terms=tuple(terms), cutoff=None)
    return potential.replace(term=rest, variables={**potential.variables, "constants": constants})


def _others(term: Sum, imports: Sequence[Import]) -> list[Any]:
    """Return the terms of a sum besides its frozen potentials."""
    scopes = {part.scope[0] for part in imports}
    return [member for k, member in enumerate(term.terms) if f"frozen_{k}" not in scopes]


def within(whole: Potential, imports: Sequence[Import], rest: Potential) -> Potential:
    """Return the potential of a sum with the parameters of the result of a training of ``without``."""
    constants = {**rest.variables["constants"], **{p.scope[0]: whole.variables["constants"][p.scope[0]] for p in imports}}
    return whole.replace(variables={**rest.variables, "constants": constants})


def residuals(dataset: Dataset, predicted: Sequence[Structure]) -> Dataset:
    """Return training and validation frames less predictions of these frames, in this order."""
    count = len(dataset.train)
    train, valid = Residual(dataset.train, predicted[:count]), Residual(dataset.valid, predicted[count:])
    return dataclasses.replace(dataset, train=train, valid=valid)
