"""The potential as a field that moves atoms."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from equipot.graph import Graph
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList, ListSpec, to_graph, update
from equipot.potential import Potential, evaluate


class Field(NamedTuple):
    """A potential on one system."""

    potential: Potential
    spec: ListSpec
    setup: Setup

    def graph(self, state: State, neighbor: DeviceList) -> Graph:
        """The model's input, with the list as it is."""
        setup = self.setup
        return to_graph(neighbor, state.position, jnp.asarray(setup.numbers), state.cell, setup.charge, setup.spin)

    def evaluate(self, state: State, neighbor: DeviceList) -> State:
        """The state with forces, energy and virial of its positions and cell, for which the list is complete."""
        periodic = all(self.setup.pbc)
        out = evaluate(self.potential, self.graph(state, neighbor), ("forces", "stress") if periodic else ("forces",))
        virial = out.stress[0] * jnp.abs(jnp.linalg.det(state.cell)) if periodic else jnp.zeros_like(state.virial)
        return state.replace(force=out.forces, interaction=out.interaction[0], virial=virial)

    def follow(self, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        """The same where the atoms have moved since the list was last complete, and the list brought up to date."""
        neighbor = update(self.spec, neighbor, state.position, state.cell)
        return self.evaluate(state, neighbor), neighbor
