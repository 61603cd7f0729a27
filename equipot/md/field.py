"""The potential as a field that moves atoms: forces, energy and virial at given positions and cell."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph, edge_vectors
from equipot.md.state import Setup
from equipot.neighbors import DeviceList, ListSpec, to_graph, update
from equipot.potential import Observables, Potential, atomic, evaluate


class Field(NamedTuple):
    """A potential on one system. Forces and energies bring the list up to date for the positions they are asked about."""

    potential: Potential
    spec: ListSpec
    setup: Setup

    def graph(self, position: Array, cell: Array, neighbor: DeviceList) -> Graph:
        """The model's input, with the list as it is."""
        setup = self.setup
        return to_graph(neighbor, position, jnp.asarray(setup.numbers), cell, setup.charge, setup.spin)

    def current(self, position: Array, cell: Array, neighbor: DeviceList) -> Graph:
        """The model's input, with a list that is complete at these positions (Å) and this cell (Å)."""
        return self.graph(position, cell, update(self.spec, neighbor, position, cell))

    def forces(self, position: Array, cell: Array, neighbor: DeviceList) -> Float[Array, "atoms 3"]:
        """eV/Å."""
        return evaluate(self.potential, self.current(position, cell, neighbor), ("forces",)).forces

    def evaluate(self, position: Array, cell: Array, neighbor: DeviceList, want: tuple[str, ...]) -> Observables:
        """Whatever is wanted, for the one graph."""
        return evaluate(self.potential, self.current(position, cell, neighbor), want)

    def energy(self, position: Array, cell: Array, neighbor: DeviceList, perturbation: Any = 1.0) -> Float[Array, ""]:
        """Interaction energy (eV) where every vector is multiplied by ``perturbation``, as jax-md asks for pressures."""
        graph = self.current(position, cell, neighbor)
        return jnp.sum(atomic(self.potential, graph, edge_vectors(graph) * perturbation).energy)
