"""Settings of ``equipot transport``."""

from __future__ import annotations

from dataclasses import dataclass

from equipot.md.trajectory import H5MD, ExtXYZ


@dataclass(frozen=True)
class Radial:
    """Radial distribution functions of all pairs of elements."""

    longest: float = 8.0
    """Longest distance, Å; it may exceed half the cell."""
    bins: int = 200
    """Number of bins up to the longest distance."""
    every: int = 10
    """Frames between those that are used."""

    def __post_init__(self) -> None:
        if not self.longest > 0:
            raise ValueError(f"longest {self.longest} Å must be above zero")
        if self.bins < 2 or self.every < 1:
            raise ValueError(f"bins {self.bins} must be at least 2 and every {self.every} at least 1")


@dataclass(frozen=True)
class Diffusion:
    """Mean squared displacements and self-diffusion coefficients of the elements."""

    viscosity_mPa_s: float | None = None
    """Shear viscosity, mPa s, for the correction for the finite cell, see ``finite_size_correction``; None for none."""

    def __post_init__(self) -> None:
        if self.viscosity_mPa_s is not None and not self.viscosity_mPa_s > 0:
            raise ValueError(f"viscosity_mPa_s {self.viscosity_mPa_s} must be above zero")


@dataclass(frozen=True)
class HeatFlux:
    """Thermal conductivity and shear viscosity from the heat flux and the pressure along a trajectory; needs a model."""

    cutoff_THz: float | None = None
    """Frequency up to which spectra of fluxes are analysed; that with 99 % of the power below it where left out."""
    every: int = 1
    """Frames between those whose flux is computed."""
    decouple: bool = True
    """Whether, with several elements, the heat flux is taken at fixed mass fluxes: a conductivity of a mixture means that, and
    of a crystal it is the same, with less noise."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every {self.every} must be at least 1")
        if self.cutoff_THz is not None and not self.cutoff_THz > 0:
            raise ValueError(f"cutoff_THz {self.cutoff_THz} must be above zero")


@dataclass(frozen=True)
class Run:
    """Molecular dynamics that makes the trajectory: equilibration with a thermostat, then at constant energy."""

    temperature_K: float = 300.0
    """Temperature, K."""
    equilibration_steps: int = 20_000
    """Steps with the thermostat, which are not used."""
    steps: int = 100_000
    """Steps at constant energy."""
    timestep_fs: float = 1.0
    """Time step, fs."""
    every: int = 5
    """Steps between frames."""
    repeat: tuple[int, int, int] = (1, 1, 1)
    """Copies of the structure along each cell vector."""
    trajectory: H5MD | ExtXYZ | None = None
    """Format; extended XYZ where left out. Its own interval of frames is replaced by ``every``."""
    seed: int = 0
    """Seed of the initial velocities and of the thermostat."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.steps % self.every or self.equilibration_steps % self.every:
            raise ValueError(
                f"steps {self.steps} and equilibration_steps {self.equilibration_steps} must be multiples of every {self.every}"
            )
        if not (self.temperature_K > 0 and self.timestep_fs > 0 and self.steps > 0):
            raise ValueError("temperature_K, timestep_fs and steps of a run must be above zero")


@dataclass(frozen=True)
class TransportConfig:
    """What is computed of a trajectory.

    Raises:
        ValueError: a value out of range.
    """

    skip_ps: float = 0.0
    """Beginning of the trajectory that is left out, ps."""
    interval_fs: float | None = None
    """Time between frames, fs, for a file that does not say it."""
    diffusion: Diffusion | None = Diffusion()
    """Diffusion; None to leave it out."""
    radial: Radial | None = Radial()
    """Radial distribution functions; None to leave them out."""
    heat: HeatFlux | None = HeatFlux()
    """Conductivity and viscosity, where a model is given; None to leave them out."""
    run: Run | None = None
    """Dynamics that make the trajectory, from a structure file in place of a trajectory; needs a model."""

    def __post_init__(self) -> None:
        if not self.skip_ps >= 0:
            raise ValueError(f"skip_ps {self.skip_ps} must not be negative")
        if self.interval_fs is not None and not self.interval_fs > 0:
            raise ValueError(f"interval_fs {self.interval_fs} must be above zero")
