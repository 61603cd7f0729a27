"""Transport and averages from trajectories: diffusion, radial distributions, heat flux, conductivity, viscosity."""

from equipot.workflows.transport.averages import averages
from equipot.workflows.transport.config import Diffusion, HeatFlux, Radial, Run, TransportConfig
from equipot.workflows.transport.diffusion import displacements, finite_size_correction, self_diffusion
from equipot.workflows.transport.dynamics import make_trajectory
from equipot.workflows.transport.green_kubo import GreenKubo, conductivity, green_kubo, viscosity
from equipot.workflows.transport.heat_flux import Flux, UnfoldedFlux
from equipot.workflows.transport.radial import RadialDistribution, radial_distribution

__all__ = [
    "Diffusion",
    "Flux",
    "GreenKubo",
    "HeatFlux",
    "Radial",
    "RadialDistribution",
    "Run",
    "TransportConfig",
    "UnfoldedFlux",
    "averages",
    "conductivity",
    "displacements",
    "finite_size_correction",
    "green_kubo",
    "make_trajectory",
    "radial_distribution",
    "self_diffusion",
    "viscosity",
]
