"""The interface of methods that draw potentials with other parameters, as members of a committee."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from equipot.console import Console
from equipot.data.method import Runner
from equipot.potential import Potential
from equipot.structure import Structure


@dataclass(frozen=True)
class Sampler(ABC):
    """Base of the methods that draw all parameters of a trained potential from their distribution, given its training data.

    A subclass in any package can be used in a config as ``kind: package.module:Class``.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Langevin": "equipot.training.langevin:Langevin",
        "SWAG": "equipot.training.swag:SWAG",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""

    @abstractmethod
    def members(
        self,
        potential: Potential,
        structures: Sequence[Structure],
        console: Console,
        folder: Path | None = None,
        runner: Runner | None = None,
    ) -> list[Potential]:
        """Draw potentials, to be joined by ``equipot.uncertainty.committee``.

        Args:
            potential: potential that was trained on the structures.
            structures: labelled structures.
            console: where progress is shown.
            folder: where the state of the work is kept, so that the same call goes on after an interruption; None to keep none.
            runner: method that the potential is a correction to, and that is subtracted from the labels.

        Raises:
            ValueError: no labels of energy, forces or stress, a potential that cannot be trained, a correction without its
                runner, or parameters that run away.
        """
