"""Training on derivatives of the dipole moment: Born effective charges and polarizabilities."""

from __future__ import annotations

import json

import ase
import ase.io
import jax
import numpy as np
import pytest

import equipot
from equipot import config
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.charges import Flows
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.polarizable import Polarizable
from equipot.quantities import BORN_CHARGES, POLARIZABILITY
from equipot.structure import Structure
from equipot.training import TrainConfig, train

NETWORK = MACE(cutoff=4.0, channels=3, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,)), elements=(1, 8))
WATER = ase.Atoms("OH2", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0.1]])


@pytest.mark.slow
@pytest.mark.parametrize("source", [Flows(), Polarizable()], ids=["flows", "polarizable"])
def test_a_model_learns_what_another_of_its_kind_says(source, tmp_path):
    """Energies and forces count nothing: whatever is learned comes from the derivatives of the dipole moment."""
    term = Electrostatics(base=NETWORK, charges=source)
    structure = Structure.from_ase(WATER)
    graph = pad([structure], 4.0, extent=extent_of([structure], term.longest_wave))
    teacher = fresh(term, graph, jax.random.key(1), Metadata(atomic_energies=((1, 0.0), (8, 0.0))))
    rows = [row for row in (BORN_CHARGES, POLARIZABILITY) if row is BORN_CHARGES or source.minimises]
    rng, frames = np.random.default_rng(0), []
    for _ in range(12):
        frame = ase.Atoms(WATER.symbols, WATER.positions + 0.05 * rng.normal(size=(3, 3)))
        (out,) = equipot.evaluate_each(teacher, frame, want=("energy", *(row.name for row in rows)))
        frame.info["energy"] = float(out.energy)
        frame.arrays[BORN_CHARGES.name] = np.asarray(out[BORN_CHARGES]).reshape(3, 9)
        if POLARIZABILITY in rows:
            frame.info[POLARIZABILITY.name] = np.asarray(out[POLARIZABILITY])
        frames.append(frame)
    ase.io.write(tmp_path / "frames.xyz", frames)
    settings = {
        "data": {"train": str(tmp_path / "frames.xyz"), "valid": 4, "atomic_energies": {"H": 0.0, "O": 0.0}},
        "model": config.dump(Electrostatics(base=NETWORK.clone(elements=()), charges=source)),
        "training": {"epochs": 60, "batch_size": 4, "optimizer": {"kind": "AdamW", "learning_rate": 0.02}}
        | {"loss": {"energy": {"weight": 0.0}}},
    }
    train(config.build(TrainConfig, settings), tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        first, last = (line[f"valid_{row.name}_rmse"] for line in (lines[0], lines[-1]))
        assert last < first / 2
