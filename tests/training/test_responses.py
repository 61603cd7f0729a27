"""Training on derivatives of the dipole moment: Born effective charges and polarizabilities."""

from __future__ import annotations

import json

import ase
import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from equipot import config
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.charges import Flows
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.polarizable import Polarizable
from equipot.quantities import BORN_CHARGES, POLARIZABILITY
from equipot.training import TrainConfig, train

WATER = ase.Atoms("OH2", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0.1]])


def dipole(positions: Float[Array, "3 3"]) -> Float[Array, "3"]:
    """Dipole moment (e Å) of a model of bonds: 0.35 (1 + 0.4 (r - 0.96 Å)) e along each, from the oxygen to the hydrogen."""
    bonds = positions[1:] - positions[:1]
    stretched = jnp.linalg.norm(bonds, axis=1, keepdims=True) - 0.96
    return jnp.sum(0.35 * (1 + 0.4 * stretched) * bonds, axis=0)


def polarizability(positions: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Polarizability (e^2 Å^2/eV) of a model of bonds: 0.05 along and 0.03 across each at 0.96 Å, growing by 0.08 per Å."""
    bonds = positions[1:] - positions[:1]
    r = jnp.linalg.norm(bonds, axis=1)
    along = jnp.einsum("bi,bj->bij", bonds, bonds) / r[:, None, None] ** 2
    return jnp.sum(0.03 * jnp.eye(3)[None] + (0.02 + 0.08 * (r - 0.96))[:, None, None] * along, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("source", [Flows(), Polarizable()], ids=["flows", "polarizable"])
def test_a_network_learns_the_derivatives_of_a_model_of_bonds(source, tmp_path):
    """Energies and forces count nothing: whatever is learned comes from the derivatives of the dipole moment."""
    network = MACE(cutoff=4.0, channels=4, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(8,)))
    rows = [row for row in (BORN_CHARGES, POLARIZABILITY) if row is BORN_CHARGES or source.minimises]
    rng, frames = np.random.default_rng(0), []
    for _ in range(24):
        frame = ase.Atoms(WATER.symbols, WATER.positions + 0.08 * rng.normal(size=(3, 3)))
        frame.info["energy"] = 0.0
        born = np.asarray(jax.jacfwd(dipole)(jnp.asarray(frame.positions)))
        frame.arrays[BORN_CHARGES.name] = born.transpose(1, 0, 2).reshape(3, 9)
        if POLARIZABILITY in rows:
            frame.info[POLARIZABILITY.name] = np.asarray(polarizability(jnp.asarray(frame.positions)))
        frames.append(frame)
    ase.io.write(tmp_path / "frames.xyz", frames)
    settings = {
        "data": {"train": str(tmp_path / "frames.xyz"), "valid": 8, "atomic_energies": {"H": 0.0, "O": 0.0}},
        "model": config.dump(Electrostatics(base=network, charges=source)),
        "training": {"epochs": 80, "batch_size": 4, "optimizer": {"kind": "AdamW", "learning_rate": 0.02}}
        | {"loss": {"energy": {"weight": 0.0}}},
    }
    train(config.build(TrainConfig, settings), tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        first, last = (line[f"valid_{row.name}_rmse"] for line in (lines[0], lines[-1]))
        assert last < first / 2
