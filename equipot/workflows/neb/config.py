"""Settings of ``equipot neb``."""

from __future__ import annotations

from dataclasses import dataclass

from equipot.workflows.neb.band import BandConfig
from equipot.workflows.neb.saddle import SaddleConfig
from equipot.workflows.relax import RelaxConfig


@dataclass(frozen=True)
class NEBConfig:
    """How a path between two structures, its saddle point and its rate are found.

    Raises:
        ValueError: a value out of range, or ends whose cells are to change.
    """

    images: int = 9
    """Number of images, both ends included, between two structures; a file with a whole path gives its own number."""
    ends: RelaxConfig | None = RelaxConfig(fmax=0.005)
    """How both ends are relaxed first; None to take them as they are."""
    band: BandConfig = BandConfig()
    """How the path is relaxed."""
    saddle: SaddleConfig | None = SaddleConfig()
    """How the saddle point is sought from the highest image, with exact Hessian products; None to leave it out."""
    reaction_coordinate: bool = False
    """Whether the intrinsic reaction coordinate is followed to both sides of the saddle point."""
    rate: bool = True
    """Whether the harmonic rate is computed, from whole Hessians of the first end and the saddle point."""
    temperatures: tuple[float, ...] = (300.0, 600.0, 900.0, 1200.0)
    """Temperatures of the rates, K."""

    def __post_init__(self) -> None:
        if self.images < 3:
            raise ValueError(f"images {self.images} must be at least 3: both ends and one between")
        if self.ends is not None and self.ends.cell != "fixed":
            raise ValueError(f"ends.cell {self.ends.cell}: the ends of a path share a cell, which stays; relax it before")
        if any(not t > 0 for t in self.temperatures):
            raise ValueError(f"temperatures {list(self.temperatures)} K must be positive")
        if (self.reaction_coordinate or self.rate) and self.saddle is None:
            raise ValueError("rate and reaction_coordinate begin at a saddle point; set saddle, or switch both off")
