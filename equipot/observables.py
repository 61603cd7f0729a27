"""Observables: energy, forces, stress and every other quantity of systems in one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
from jaxtyping import Float

from equipot.arrays import AnyArray, AnyNumber
from equipot.quantities import Quantity

__all__ = ["Observables"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "interaction",
        "interactions",
        "energy",
        "forces",
        "stress",
        "energies",
        "virials",
        "charges",
        "latent",
        "others",
    ],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Observables:
    """Predictions or references; a quantity that was not requested or is not known is None.

    A batch has the axis ``graphs``, a single system none; results of an ensemble have an axis of its members before all others.
    """

    interaction: Float[AnyNumber, "*graphs"] | None = None
    """(graphs,) energy less E0 of the isolated atoms (eV). The device computes interaction energies, because float32 resolves
    a total energy of -1e4 eV to 1 meV only."""
    interactions: Float[AnyArray, "*atoms"] | None = None
    """(atoms,) energy of each atom less its E0 (eV); they sum to ``interaction``."""
    energy: Float[AnyNumber, "*graphs"] | None = None
    """(graphs,) total energy (eV), E0 added in double precision on the host."""
    forces: Float[AnyArray, "*atoms 3"] | None = None
    """(atoms, 3) eV/Å."""
    stress: Float[AnyArray, "*graphs 3 3"] | None = None
    """(graphs, 3, 3) eV/Å^3, positive under tension; NaN for a graph without a volume."""
    energies: Float[AnyArray, "*atoms"] | None = None
    """(atoms,) energy of each atom with its E0 (eV); they sum to ``energy``."""
    virials: Float[AnyArray, "*atoms 3 3"] | None = None
    """(atoms, 3, 3) eV; they sum to the stress times the volume."""
    charges: Float[AnyArray, "*atoms"] | None = None
    """(atoms,) e."""
    latent: Float[AnyArray, "*atoms features"] | None = None
    """(atoms, features)."""
    others: dict[str, Float[AnyNumber, "..."]] = dataclasses.field(default_factory=dict)
    """Further quantities that the term provides, by name: (graphs, *shape) or (atoms, *shape)."""

    def __getitem__(self, quantity: Quantity) -> Float[AnyNumber, "..."] | None:
        """Return the value of a quantity, or None."""
        own = quantity.name in self.__dataclass_fields__
        return getattr(self, quantity.name) if own else self.others.get(quantity.name)

    @classmethod
    def of(cls, values: Mapping[str, Float[AnyNumber, "..."] | None]) -> Observables:
        """Build from values by the names of fields and of quantities; values of None are dropped."""
        own = cls.__dataclass_fields__.keys()
        others = {name: value for name, value in values.items() if name not in own and value is not None}
        known: dict[str, Any] = {name: value for name, value in values.items() if name in own}
        return cls(**known, others=others)

    def items(self) -> Iterator[tuple[str, Float[AnyNumber, "..."]]]:
        """Iterate over name and value of every quantity that is not None."""
        for field in dataclasses.fields(self):
            if field.name != "others" and getattr(self, field.name) is not None:
                yield field.name, getattr(self, field.name)
        yield from self.others.items()

    def replace(self, **changes: Any) -> Observables:
        """Return a copy with other fields."""
        return dataclasses.replace(self, **changes)
