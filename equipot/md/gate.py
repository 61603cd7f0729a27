"""A gate on the uncertainty of a potential: record what it is unsure of, and stop where it knows nothing.

Deviations of forces take backward passes and are checked at intervals; novelty follows from what every evaluation of the forces
has computed, and is checked in every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from equipot.md.trajectory import ExtXYZWriter, Frame, System
from equipot.posterior import check_estimates
from equipot.potential import Potential
from equipot.quantities import ENERGY_STD, FORCES_STD, NOVELTY
from equipot.structure import Structure

USUAL_INTERVAL = 20
"""Steps between checks of the deviations of forces where only their limits are given."""
REACHED = 1 - 1e-6
"""Share of a limit at which it counts as reached: the device compares in single precision."""


class Halted(RuntimeError):
    """A run stopped because the potential is too unsure of the structure; the log ends where that was first seen."""


@dataclass(frozen=True)
class Gate:
    """Limits on the largest ``forces_std`` (eV/Å) and ``novelty`` of any atom, for a potential that has these estimates.

    A run that a gate has stopped, or any other, can be resumed with another gate, or without one.

    Raises:
        ValueError: no limit at all, one that is not positive, or one for recording that is above that for stopping.
    """

    record: float | None = None
    """Deviation from which on a frame that is checked is appended to recorded.xyz; 0.1 for example."""
    halt: float | None = None
    """Deviation from which on the run stops; 0.5 for example."""
    every: int | None = None
    """Steps between checks of the deviations, a multiple of log_every; ``USUAL_INTERVAL`` where left out with ``record`` or
    ``halt``, and no checks without these."""
    novelty: float | None = None
    """Novelty from which on the run stops, in whatever step it is reached; 3 for example."""
    record_novelty: float | None = None
    """Novelty from which on frames are recorded: that of the largest novelty between two lines of the log."""

    def __post_init__(self) -> None:
        if all(getattr(self, field.name) is None for field in fields(self)):
            raise ValueError("gate has no limits; give some, such as {novelty: 3} or {record: 0.1, halt: 0.5}")
        for name, unit in (("record", " eV/Å"), ("halt", " eV/Å"), ("novelty", ""), ("record_novelty", "")):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"gate.{name} {value}{unit} must be positive; leave it empty for none")
        for low, high, unit in (("record", "halt", " eV/Å"), ("record_novelty", "novelty", "")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"gate.{low} {least}{unit} is above gate.{high} {most}: nothing would be recorded before")
        if self.every is not None and self.every < 1:
            raise ValueError(f"gate.every {self.every} must be at least 1")

    @property
    def interval(self) -> int:
        """Steps between checks of the deviations of forces; zero for none."""
        unchecked = self.record is None and self.halt is None
        return self.every or (0 if unchecked else USUAL_INTERVAL)

    @property
    def watches_novelty(self) -> bool:
        """Whether the novelty is computed in every step."""
        return self.novelty is not None or self.record_novelty is not None

    @property
    def limit(self) -> float:
        """Deviation of a force that stops a run, eV/Å; infinite for none."""
        return math.inf if self.halt is None else self.halt

    @property
    def novelty_limit(self) -> float:
        """Novelty that stops a run; infinite for none."""
        return math.inf if self.novelty is None else self.novelty

    def check(self, potential: Potential, structure: Structure) -> None:
        """Check that a potential has the estimates that the gate is about, for a structure.

        Raises:
            ValueError: the potential has no estimate of its uncertainty, or none that is calibrated for an element.
        """
        rows = (*((FORCES_STD, ENERGY_STD) if self.interval else ()), *((NOVELTY,) if self.watches_novelty else ()))
        try:
            check_estimates(potential.posterior, rows, [structure])
        except ValueError as error:
            raise ValueError(f"gate: {error}; or leave gate out") from None

    def reason(self, frame: Frame) -> str | None:
        """Say why the gate stops a run at a frame, by the estimate that is farthest beyond the limit; None if it does not."""
        limits = {FORCES_STD.name: self.limit, NOVELTY.name: self.novelty_limit}
        share = {name: np.max(x) / limits[name] for name, x in frame.estimates.items() if limits[name] < math.inf}
        name = max(share, key=lambda name: share[name], default="")
        if not name or share[name] < REACHED:
            return None
        k = int(np.argmax(frame.estimates[name]))
        value = f"{frame.estimates[name][k]:.3g}"
        found = {
            FORCES_STD.name: f"the force on atom {k} has a deviation of {value} eV/Å (gate.halt is {self.limit:g})",
            NOVELTY.name: f"the environment of atom {k} has a novelty of {value} (gate.novelty is {self.novelty_limit:g})",
        }
        where = "the frame is the last of recorded.xyz" if frame.step else "the potential does not know this structure"
        return f"step {frame.step}: {found[name]}: {where}; label it and train on it, or go on with another gate"

    def records(self, frame: Frame) -> bool:
        """Whether a frame is to be recorded: one that stops the run always is."""
        least = {
            FORCES_STD.name: self.limit if self.record is None else self.record,
            NOVELTY.name: self.novelty_limit if self.record_novelty is None else self.record_novelty,
        }
        return any(np.max(x) / least[name] >= REACHED for name, x in frame.estimates.items() if least[name] < math.inf)


class Recorder:
    """Writer of recorded.xyz: frames of which the potential was unsure, with the estimates of each atom."""

    def __init__(self, out: Path, system: System, gate: Gate):
        self.out = out
        self.file = ExtXYZWriter(out / "recorded.xyz", system)
        self.gate = gate

    def append(self, frames: Sequence[Frame]) -> None:
        """Append those frames that the gate records."""
        chosen = [frame for frame in frames if self.gate.records(frame)]
        if chosen:
            self.file.append(chosen)

    def draw(self) -> None:
        """Draw the last frame of recorded.xyz to recorded.png, coloured by its estimates; nothing where none was recorded."""
        from ase.io import read

        from equipot.uncertainty.pictures import picture

        if self.file.mark() == 0:
            return
        atoms: Any = read(self.out / "recorded.xyz", -1)
        title = f"step {atoms.info['step']}, {atoms.info['time_fs'] / 1000:.4g} ps"
        # Estimates that were not due at the step are not a number.
        found = {row.name: atoms.arrays.get(row.name) for row in (FORCES_STD, NOVELTY)}
        known = {name: values for name, values in found.items() if values is not None and not np.isnan(values).any()}
        picture(Structure.from_ase(atoms), self.out / "recorded.png", **known, title=title)

    def mark(self) -> int:
        """Return the length of the file."""
        return self.file.mark()

    def cut(self, mark: int) -> None:
        """Shorten the file to a length of ``mark``."""
        self.file.cut(mark)
