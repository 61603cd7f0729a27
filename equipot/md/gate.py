"""A gate on the uncertainty of forces: record what the potential is unsure of, and stop where it knows nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from equipot.md.trajectory import ExtXYZWriter, Frame, System
from equipot.posterior import check_estimates
from equipot.potential import Potential
from equipot.quantities import ENERGY_STD, FORCES_STD
from equipot.structure import Structure


class Halted(RuntimeError):
    """A run stopped because the potential is too unsure of the forces; log and trajectory end where that was first seen."""


@dataclass(frozen=True)
class Gate:
    """Thresholds on the largest ``forces_std`` of any atom (eV/Å), for a potential with an estimate of its uncertainty."""

    record: float | None = 0.1
    """Deviation from which on a frame is appended to recorded.xyz; None to record nothing but a halt."""
    halt: float | None = 0.5
    """Deviation from which on the run stops; None to go on whatever it is."""
    every: int = 20
    """Steps between checks, a multiple of log_every."""

    def __post_init__(self) -> None:
        for name in ("record", "halt"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"gate.{name} {value} eV/Å must be positive; leave it empty for none")
        if self.record is not None and self.halt is not None and self.record > self.halt:
            raise ValueError(f"gate.record {self.record} eV/Å is above gate.halt {self.halt}: nothing would be recorded before")
        if self.every < 1:
            raise ValueError(f"gate.every {self.every} must be at least 1")

    def check(self, potential: Potential, structure: Structure) -> None:
        """Check that a potential has deviations for a structure.

        Raises:
            ValueError: the potential has no calibrated estimate of its uncertainty, or none for an element.
        """
        try:
            check_estimates(potential.posterior, (FORCES_STD, ENERGY_STD), [structure])
        except ValueError as error:
            raise ValueError(f"gate: {error}; or leave gate out") from None

    @property
    def limit(self) -> float:
        """Deviation that stops a run, eV/Å; infinite for none."""
        return math.inf if self.halt is None else self.halt

    def halted(self, step: int, deviations: Float[np.ndarray, " atoms"]) -> str:
        """Say why the gate stops a run at a step, by the deviations of the forces on all atoms (eV/Å)."""
        k = int(np.argmax(deviations))
        where = "the potential does not know this structure" if step == 0 else "the frame is the last of recorded.xyz"
        return (
            f"step {step}: the force on atom {k} has a deviation of {deviations[k]:.3g} eV/Å (gate.halt is {self.halt:g}): "
            f"{where}; label it and train on it"
        )


class Recorder:
    """Writer of recorded.xyz: frames of which the potential was unsure, with ``forces_std`` of each atom."""

    def __init__(self, out: Path, system: System, gate: Gate):
        self.out = out
        self.file = ExtXYZWriter(out / "recorded.xyz", system)
        self.gate = gate

    def append(self, frames: Sequence[Frame]) -> None:
        """Append those of some checked frames that are above a threshold."""
        least = min(self.gate.limit, math.inf if self.gate.record is None else self.gate.record)
        chosen = [frame for frame in frames if frame.deviation is not None and np.nanmax(frame.deviation) >= least]
        if chosen:
            self.file.append(chosen)

    def draw(self) -> None:
        """Draw the last frame of recorded.xyz to recorded.png, coloured by ``forces_std``; nothing where none was recorded."""
        from ase.io import read

        from equipot.uncertainty.pictures import picture

        if self.file.mark() == 0:
            return
        atoms: Any = read(self.out / "recorded.xyz", -1)
        title = f"step {atoms.info['step']}, {atoms.info['time_fs'] / 1000:.4g} ps"
        picture(Structure.from_ase(atoms), atoms.arrays[FORCES_STD.name], self.out / "recorded.png", title=title)

    def mark(self) -> int:
        """Return the length of the file."""
        return self.file.mark()

    def cut(self, mark: int) -> None:
        """Shorten the file to a length of ``mark``."""
        self.file.cut(mark)
