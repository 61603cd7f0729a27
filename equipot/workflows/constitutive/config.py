"""Settings of ``equipot constitutive``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from equipot.workflows.constitutive.density import Density
from equipot.workflows.constitutive.kinematics import StrainRange
from equipot.workflows.relax.config import RelaxConfig


@dataclass(frozen=True)
class Training:
    """How a law is fitted: all deformations at once, by Adam and then by L-BFGS; the best by its validation loss is kept.

    Raises:
        ValueError: a value out of range.
    """

    validation: float = 0.15
    """Share of the deformations that the law is not fitted to, but chosen by."""
    adam_steps: int = 1000
    """Steps of Adam, whose learning rate falls to zero as a cosine."""
    learning_rate: float = 0.01
    """Learning rate of Adam at its first step."""
    lbfgs_steps: int = 1000
    """Steps of L-BFGS after those of Adam."""
    energy_weight: float = 0.1
    """Weight of the relative squared error of energies beside that of stresses, which is 1."""
    report_every: int = 100
    """Steps between two evaluations of the validation loss."""
    seed: int = 0
    """Seed of the split and of the first parameters."""

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ValueError(f"validation {self.validation} must lie between 0 and 1: it is a share of the deformations")
        if self.adam_steps < 0 or self.lbfgs_steps < 0 or self.adam_steps + self.lbfgs_steps < 1:
            raise ValueError(f"adam_steps {self.adam_steps} and lbfgs_steps {self.lbfgs_steps}: at least one step is needed")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be positive")
        if not self.energy_weight >= 0:
            raise ValueError(f"energy_weight {self.energy_weight} must not be negative; 0 leaves energies out")
        if self.report_every < 1:
            raise ValueError(f"report_every {self.report_every} must be at least 1")


@dataclass(frozen=True)
class Sampling:
    """Deformations of the crystal that are computed.

    Raises:
        ValueError: a value out of range.
    """

    bounds: StrainRange = StrainRange()
    """Range of the deformations that are trained on."""
    count: int = 200
    """Number of deformations for training and validation."""
    tests: int = 60
    """Number of unseen deformations of each test: inside the range, at its edge, and outside."""
    reach: float = 1.5
    """Distance of the farthest deformations outside, in units of the range."""
    points: int = 21
    """Number of deformations of each path of the figure."""
    atoms: Literal["relaxed", "affine"] = "relaxed"
    """Whether atoms are relaxed in each deformed cell, or follow it (the Cauchy-Born rule)."""
    seed: int = 0
    """Seed of the deformations."""

    def __post_init__(self) -> None:
        for name, least in {"count": 10, "tests": 1, "points": 3}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} must be at least {least}")
        if not 1 < self.reach <= 3:
            raise ValueError(f"reach {self.reach} must be above 1, where the range ends, and at most 3")


@dataclass(frozen=True)
class ConstitutiveConfig:
    """How a crystal's hyperelastic law is found.

    Raises:
        ValueError: a value out of range.
    """

    law: Density = field(default_factory=Density)
    """Form of the law."""
    sampling: Sampling = Sampling()
    """Deformations that are computed."""
    training: Training = Training()
    """How the law is fitted to them."""
    relax: RelaxConfig | None = RelaxConfig(cell="full", fmax=1e-4, smax_GPa=0.001)
    """How the reference is relaxed first; None to take the structure as it is."""
    symprec: float = 1e-4
    """Distance (Å) within which atoms count as images of each other when the crystal's rotations are found."""
    tolerance: float = 0.05
    """Relative error of the stress on unseen deformations inside the range above which the law is told to have failed."""

    def __post_init__(self) -> None:
        if not self.symprec > 0:
            raise ValueError(f"symprec {self.symprec} Å must be positive")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance {self.tolerance} must lie between 0 and 1: it is a relative error")
