"""Forces of a potential on moving atoms, with an updated neighbour list."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.graph import Graph
from equipot.md.state import Setup, State
from equipot.neighbors import DeviceList, ListSpec, to_graph, update
from equipot.potential import Potential, evaluate
from equipot.quantities import DIPOLE, ENERGY_STD, FORCES_STD, NOVELTY


class Forces(NamedTuple):
    """A potential applied to one system."""

    potential: Potential
    spec: ListSpec
    setup: Setup
    watches_novelty: bool = False
    """Whether the novelty of all atoms is computed with every evaluation of the forces."""

    def graph(self, state: State, neighbor: DeviceList) -> Graph:
        """Build the input of the model from a state and a neighbour list that is complete for the state."""
        setup, numbers = self.setup, jnp.asarray(self.setup.numbers)
        return to_graph(neighbor, state.position, numbers, state.cell, setup.charge, setup.spin, setup.field)

    def compute(self, state: State, neighbor: DeviceList) -> State:
        """Set force (eV/Å), interaction and virial (eV), and novelty if watched, of a state for which the list is complete."""
        want = ("forces", "stress") if all(self.setup.pbc) else ("forces",)
        novel = (NOVELTY.name,) if self.watches_novelty else ()
        out = evaluate(self.potential, self.graph(state, neighbor), (*want, *novel))
        assert out.interaction is not None and out.forces is not None
        virial = out.stress[0] * jnp.abs(jnp.linalg.det(state.cell)) if out.stress is not None else jnp.zeros_like(state.virial)
        novelty = jnp.asarray(out[NOVELTY]).astype(state.position.dtype) if self.watches_novelty else ()
        return state.replace(force=out.forces, interaction=jnp.asarray(out.interaction)[0], virial=virial, novelty=novelty)

    def dipole(self, state: State, neighbor: DeviceList) -> Float[Array, " 3"]:
        """Compute the dipole moment (e Å) of a state for which the list is complete; NaN for a potential without."""
        if DIPOLE not in self.potential.provides:
            return jnp.full(3, jnp.nan, state.position.dtype)
        found = evaluate(self.potential, self.graph(state, neighbor), (DIPOLE.name,))[DIPOLE]
        return jnp.asarray(found)[0].astype(state.position.dtype)

    def deviations(
        self, state: State, neighbor: DeviceList, due: Bool[Array, ""] | bool
    ) -> tuple[Float[Array, ""], Float[Array, " atoms"]]:
        """Estimate the deviations of energy (eV) and forces (eV/Å, one of each atom) where they are ``due``, else NaN."""
        dtype = state.position.dtype
        nothing = jnp.full((), jnp.nan, dtype), jnp.full(len(state.position), jnp.nan, dtype)
        if due is False:
            return nothing

        def estimated() -> tuple[Array, Array]:
            found = evaluate(self.potential, self.graph(state, neighbor), (ENERGY_STD.name, FORCES_STD.name))
            return jnp.asarray(found[ENERGY_STD])[0].astype(dtype), jnp.asarray(found[FORCES_STD]).astype(dtype)

        return jax.lax.cond(due, estimated, lambda: nothing)

    def update(self, state: State, neighbor: DeviceList) -> tuple[State, DeviceList]:
        """Rebuild the list if atoms have moved too far since the last build, then ``compute``.

        After an overflow the state keeps its forces: those of a list that lacks pairs or waves may be no numbers, and the
        geometry, by which the list is then enlarged, would be lost with them.
        """
        neighbor = update(self.spec, neighbor, state.position, state.cell)
        after = self.compute(state, neighbor)
        return jax.tree.map(lambda old, new: jnp.where(neighbor.overflow, old, new), state, after), neighbor
