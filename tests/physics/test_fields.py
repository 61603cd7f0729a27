"""An external field reaches the model by every way in, and the files that state it."""

from __future__ import annotations

import ase
import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import equipot
from equipot import md
from equipot.data.batch import pad
from equipot.data.hdf5 import HDF5Dataset, write_hdf5
from equipot.data.loader import sha256_of
from equipot.data.read import Dataset, Reading, gather
from equipot.extent import extent_of
from equipot.interfaces import jaxmd
from equipot.md import log
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.physics.charges import PerSpecies
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.zbl import ZBL
from equipot.potential import evaluate
from equipot.quantities import BORN_CHARGES, DIPOLE, POLARIZABILITY, QUADRUPOLE
from equipot.structure import Structure
from equipot.training.beginning import prepare_sets

PAIR = ase.Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.5]])
FIELD = [0.1, 0.0, -0.2]


@pytest.fixture
def potential(double_precision):
    """Point charges of 0.5 e and -0.5 e, on which a field acts with half of its size."""
    term = Electrostatics(cutoff=4.0, charges=PerSpecies((0.5, -0.5)), elements=(11, 17))
    structure = Structure.from_ase(PAIR)
    graph = pad([structure], 4.0, extent=extent_of([structure], term.longest_wave))
    return fresh(term, graph, jax.random.key(0), Metadata(((11, 0.0), (17, 0.0)))).astype("float64")


def test_a_field_reaches_the_model_by_every_way_in(potential, tmp_path):
    atoms = PAIR.copy()
    atoms.calc = potential.calculator()
    without = atoms.get_forces()
    wanted = without + 0.5 * np.outer([1, -1], FIELD)
    atoms.calc.set(field=FIELD)
    np.testing.assert_allclose(atoms.get_forces(), wanted, atol=1e-12)
    stated = PAIR.copy()
    stated.info["electric_field"] = FIELD
    np.testing.assert_allclose(equipot.evaluate(potential, stated).forces, wanted, atol=1e-12)
    stated.calc = potential.calculator()
    np.testing.assert_allclose(stated.get_forces(), wanted, atol=1e-12)
    stated.info["electric_field"] = [0, 0, 0]
    np.testing.assert_allclose(stated.get_forces(), without, atol=1e-12)
    stated.calc = potential.calculator(field=FIELD)
    with pytest.raises(ValueError, match="calculator and atoms.info have different electric fields"):
        stated.get_forces()
    neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, PAIR.numbers, field=FIELD)
    force = -jax.grad(energy_fn)(jnp.asarray(PAIR.positions), neighbor=neighbor_fn.allocate(PAIR.positions))
    np.testing.assert_allclose(force, wanted, atol=1e-12)
    config = md.MDConfig(
        model="", structure="", ensemble=md.NVE(), steps=10, field=tuple(FIELD), dtype="float64",
        initial_temperature_K=0.0, timestep_fs=0.1, trajectory=md.ExtXYZ(every=10),
    )  # fmt: skip
    md.simulate(potential, Structure.from_ase(PAIR), config, tmp_path, progress=None)
    frame = ase.io.read(tmp_path / "trajectory.xyz", 0)
    np.testing.assert_allclose(frame.get_forces(), wanted, atol=1e-8)
    np.testing.assert_allclose(frame.info["electric_field"], FIELD)
    table = log.read(tmp_path / "log.csv")
    np.testing.assert_allclose([table[f"dipole_{k}_eA"][0] for k in "xyz"], [0, 0, -1.25], atol=1e-9)


def test_properties_of_ase_that_are_derivatives_of_the_dipole_are_computed_on_request(potential):
    atoms = PAIR.copy()
    atoms.calc = potential.calculator()
    atoms.get_potential_energy()
    assert "born_effective_charges" not in atoms.calc.results and "quadrupole" in atoms.calc.results
    born = atoms.calc.get_property("born_effective_charges", atoms)
    np.testing.assert_allclose(born, 0.5 * np.stack([np.eye(3), -np.eye(3)]), atol=1e-12)
    np.testing.assert_allclose(atoms.calc.get_property("polarizability", atoms), np.zeros((3, 3)), atol=1e-12)
    np.testing.assert_allclose(atoms.get_dipole_moment(), [0, 0, -1.25], atol=1e-12)


def test_files_keep_the_field(tmp_path):
    fielded, plain = (Structure.from_ase(PAIR).replace(energy=1.0, forces=np.zeros((2, 3))) for _ in range(2))
    fielded = fielded.replace(field=np.array(FIELD))
    ase.io.write(tmp_path / "a.xyz", [fielded.to_ase(), plain.to_ase()])
    frames, _ = gather(str(tmp_path / "a.xyz"), Reading())
    write_hdf5(tmp_path / "a.h5", frames)
    for found in (frames, HDF5Dataset(tmp_path / "a.h5")):
        np.testing.assert_array_equal(found[0].field, FIELD)
        assert not found[1].field.any() and "electric_field" not in found[0].info
    assert sha256_of(frames) != sha256_of([plain, plain]) and sha256_of([frames[1]]) == sha256_of([plain])
    units = equipot.config.build(Reading, {"units": {"energy": "Hartree", "length": "bohr"}})
    with pytest.raises(ValueError, match="an electric field is read in V/Å, but the frame is not in eV and Å"):
        gather(str(tmp_path / "a.xyz"), units)


def test_the_derivatives_of_a_dipole_moment_that_is_not_there_are_none(potential):
    """In a crystal of charges that do not flow: zeros would pass for numbers."""
    crystal = PAIR.copy()
    crystal.set_cell([5.0, 5.0, 5.0])
    crystal.pbc = True
    structure = Structure.from_ase(crystal)
    graph = pad([structure], 4.0, dtype=np.float64, extent=potential.extent([structure]))
    out = evaluate(potential, jax.tree.map(jnp.asarray, graph), ("born_effective_charges", "polarizability"))
    assert np.isnan(out[BORN_CHARGES]).all() and np.isnan(out[POLARIZABILITY]).all()


def test_an_ion_in_a_field_stays_where_it_is_in_files(potential, tmp_path):
    """Its energy depends on the place, so that it is not moved to the origin; its moments are about its middle all the same."""
    ion = Structure.from_ase(PAIR).replace(charge=1.0, field=np.array(FIELD))
    ion = ion.replace(positions=ion.positions + [5.0, 6.0, 7.0])
    config = md.MDConfig(
        model="", structure="", ensemble=md.NVE(), steps=10, dtype="float64", initial_temperature_K=0.0, timestep_fs=0.1,
        trajectory=md.ExtXYZ(every=10),
    )  # fmt: skip
    md.simulate(potential, ion, config, tmp_path, progress=None)
    np.testing.assert_allclose(ase.io.read(tmp_path / "trajectory.xyz", 0).positions, ion.positions, atol=1e-8)
    here, alone = (equipot.evaluate(potential, s, want=("dipole", "quadrupole")) for s in (ion, ion.replace(field=np.zeros(3))))
    np.testing.assert_allclose(here[DIPOLE], alone[DIPOLE], atol=1e-12)
    np.testing.assert_allclose(here[QUADRUPOLE], alone[QUADRUPOLE], atol=1e-12)


def test_a_model_that_does_not_see_fields_is_not_trained_on_frames_in_them():
    frames = [Structure.from_ase(PAIR).replace(field=np.array(FIELD), energy=0.0, source="frame 7")]
    dataset = Dataset(frames, [], [], {11: 0.0, 17: 0.0}, "", None)
    with pytest.raises(ValueError, match="frame 7: is in an electric field, which the model does not see"):
        prepare_sets(dataset, ZBL(cutoff=3.0))
