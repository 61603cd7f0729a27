"""A cell that outgrows the reciprocal vectors of its charges: the run goes on with more of them, as if it had begun so."""

import jax
import numpy as np
import pytest
from ase.build import bulk

from equipot import extent, md
from equipot.data.batch import pad
from equipot.md import log
from equipot.md.checkpoint import read_checkpoint
from equipot.metadata import Metadata
from equipot.physics.charges import PerSpecies
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, initial
from equipot.structure import Structure

CUTOFF = 6.0


@pytest.fixture
def salt():
    """Neon with 0.4 e and argon with -0.4 e, as in rock salt, bound by charges and a Lennard-Jones potential."""
    atoms = bulk("NeAr", "rocksalt", a=7.45, cubic=True)
    structure = Structure.from_ase(atoms, source="salt")
    term = Electrostatics(base=LennardJones(cutoff=CUTOFF), charges=PerSpecies((0.4, -0.4)), elements=(10, 18))
    graph = jax.device_put(pad([structure], CUTOFF, extent=extent.extent_of([structure], term.longest_wave)))
    return Potential(term, initial(term, jax.random.key(0), graph), Metadata(((10, 0.0), (18, 0.0)))), structure


def test_energies_do_not_jump_where_a_cell_outgrows_its_waves(salt, tmp_path, monkeypatch):
    """Beside a run with the larger set from the start, under a tension that widens the cell by more than a tenth."""
    lines, waves = {}, {}
    for name, growth in (("grown", extent.GROWTH), ("wide", 2.0)):
        monkeypatch.setattr(extent, "GROWTH", growth)
        config = md.MDConfig(
            "-", "-", md.NPTIsotropic(), 60, 2.0, 40.0, pressure_GPa=-1.0, log_every=2, chunk_steps=20, skin=1.0,
            trajectory=None, dtype="float64",
        )  # fmt: skip
        md.simulate(*salt, config, tmp_path / name, progress=None)
        lines[name] = log.read(tmp_path / name / "log.csv")
        waves[name] = tuple(read_checkpoint(tmp_path / name / "checkpoint.safetensors")[1]["spec"]["waves"])
    first = extent.waves_of(salt[1].positions, salt[1].cell, salt[1].pbc, salt[0].term.longest_wave)
    monkeypatch.undo()
    planned = extent.waves_of(salt[1].positions, salt[1].cell, salt[1].pbc, salt[0].term.longest_wave)
    assert planned < waves["grown"] < first == waves["wide"]
    for column in ("potential_eV", "conserved_eV"):
        np.testing.assert_allclose(lines["grown"][column], lines["wide"][column], rtol=0, atol=1e-7)
    assert np.ptp(lines["wide"]["potential_eV"]) > 0.1
