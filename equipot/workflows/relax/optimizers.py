"""What every optimiser of a relaxation does: propose a point, then take or refuse it once it was evaluated.

All systems of a batch move at once, each by its own memory: no number of one depends on another. Proposing is apart from
taking, so that the neighbour lists of a proposed point can be renewed before it is evaluated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.workflows.relax.coordinates import Coordinates, Landscape, Point
from equipot.workflows.relax.valence import Valence


class Walk(NamedTuple):
    """State of the relaxation of a batch."""

    point: Point
    """Best point that was taken so far of each system."""
    trial: Coordinates
    """Proposed point, not yet evaluated."""
    fresh: Bool[Array, " graphs"]
    """Whether nothing has been evaluated of a system yet; when a step is proposed, whether the system is not to move."""
    memory: Any
    """Memory of the optimiser: a tree of ``Coordinates`` and of arrays with an axis of graphs in front."""
    products: Float[Array, " graphs"]
    """Products with the Hessian so far."""


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base of the optimisers. A subclass in any package can be used in a config as ``kind: package.module:Class``.

    Raises:
        ValueError: a step that is not positive.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "FIRE": "equipot.workflows.relax.fire:FIRE",
        "LBFGS": "equipot.workflows.relax.lbfgs:LBFGS",
        "Newton": "equipot.workflows.relax.newton:Newton",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""
    uses_hessian: ClassVar[bool] = False
    """Whether the method multiplies with the Hessian, which may be that of a cheaper potential."""
    valence: Valence | None = None
    """Model Hessian of bonds, angles and torsions that scales the steps of methods which can use one; None for none."""
    max_step: float = 0.2
    """Longest way of an atom in one step, Å."""

    def __post_init__(self) -> None:
        if not 0 < self.max_step < 10:
            raise ValueError(f"max_step {self.max_step} Å must be positive and no longer than a bond or two")

    @abstractmethod
    def start(self, landscape: Landscape, at: Coordinates) -> Any:
        """Return the memory of systems that have not moved."""

    @abstractmethod
    def propose(self, landscape: Landscape, walk: Walk) -> Walk:
        """Set ``trial``, from a point that was just taken or refused."""

    @abstractmethod
    def take(self, landscape: Landscape, walk: Walk, found: Point) -> Walk:
        """Take the point that was found at ``trial``, or keep the old one. A fresh system takes what was found."""

    def shortened(self, landscape: Landscape, step: Coordinates) -> Coordinates:
        """Shorten the steps of systems in which an atom would go farther than ``max_step``."""
        longest = landscape.longest(step)
        return landscape.scaled(jnp.minimum(1, self.max_step / jnp.maximum(longest, 1e-30)), step)


def noise(energy: Float[Array, " graphs"]) -> Float[Array, " graphs"]:
    """Return the rounding of an energy (eV), below which a rise of the energy says nothing."""
    return 64 * jnp.finfo(energy.dtype).eps * (1 + jnp.abs(energy))
