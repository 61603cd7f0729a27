"""Trajectories as ``equipot md`` writes them and as ASE does, frame by frame."""

import tracemalloc

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from equipot.md.trajectory import H5MD, ExtXYZ, Frame, System
from equipot.units import fs
from equipot.workflows.statistics import open_trajectory
from equipot.workflows.statistics.trajectory import from_frames
from equipot.workflows.transport import displacements


def frames_of(count=7):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    rng, found = np.random.default_rng(0), []
    for k in range(count):
        moved = atoms.positions + rng.normal(0, 0.1, atoms.positions.shape)
        found.append(Frame(10 * k, 20.0 * k, moved, rng.normal(size=moved.shape), 0 * moved, atoms.cell[:], -3.0 + k))
    return System(atoms.numbers, atoms.get_masses()[:, None], (True, True, True)), found


@pytest.mark.parametrize("kind, tolerance", [(ExtXYZ(), 1e-7), (H5MD(), 1e-6)], ids=["xyz", "h5"])
def test_a_run_is_read_with_its_velocities_energies_and_times(tmp_path, kind, tolerance):
    system, frames = frames_of()
    kind.writer(tmp_path, system).append(frames)
    found = open_trajectory(str(tmp_path))
    assert found.interval_fs == pytest.approx(20) and found.pbc == (True, True, True)
    np.testing.assert_allclose(found.masses, system.mass[:, 0], rtol=1e-6)
    read = list(found.checked())
    assert len(read) == 7 and len(list(found.skipping(41.0).checked())) == 5
    for got, given in zip(read, frames, strict=True):
        np.testing.assert_allclose(got.positions, given.position, atol=tolerance * 10)
        np.testing.assert_allclose(got.velocities, given.momentum / system.mass * fs, atol=tolerance)
        assert got.energy == pytest.approx(given.energy) and got.time_fs == pytest.approx(given.time_fs)
    name = next(tmp_path.glob("trajectory.*"))
    part = list(open_trajectory(f"{name}@1::2").checked())
    assert [x.time_fs for x in part] == [20, 60, 100]


def test_what_is_no_trajectory_is_refused(tmp_path):
    atoms = bulk("Cu", cubic=True)
    write(tmp_path / "cu.traj", [atoms, atoms])
    with pytest.raises(ValueError, match="interval_fs"):
        open_trajectory(str(tmp_path / "cu.traj"))
    assert open_trajectory(str(tmp_path / "cu.traj"), 2.0).interval_fs == 2.0
    write(tmp_path / "one.xyz", atoms)
    with pytest.raises(ValueError, match="1 frames"):
        open_trajectory(str(tmp_path / "one.xyz"), 1.0)
    with pytest.raises(ValueError, match="is one frame"):
        open_trajectory(str(tmp_path / "cu.traj") + "@-1", 1.0)
    with pytest.raises(FileNotFoundError):
        open_trajectory("nowhere.xyz")
    system, frames = frames_of()
    ExtXYZ().writer(tmp_path, system).append([*frames[:3], *frames[4:]])
    with pytest.raises(ValueError, match="frame 3: is at 80 fs instead of 60"):
        list(open_trajectory(str(tmp_path)).checked())
    with pytest.raises(ValueError, match="leave it out"):
        open_trajectory(str(tmp_path), 5.0)


def test_what_a_calculator_of_ase_says_is_read(tmp_path):
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [3, 0, 0]], cell=[9, 9, 9], pbc=True)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    stress = np.arange(1.0, 7.0)
    atoms.calc = SinglePointCalculator(atoms, energy=1.5, stress=stress, dipole=np.array([1.0, 2.0, 3.0]))
    write(tmp_path / "a.traj", [atoms, atoms])
    frame = next(open_trajectory(str(tmp_path / "a.traj"), 1.0).checked())
    np.testing.assert_allclose(frame.velocities, atoms.get_momenta() / atoms.get_masses()[:, None] * fs)
    np.testing.assert_allclose(frame.stress, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_allclose(frame.dipole, [1, 2, 3])


def test_a_trajectory_that_would_not_fit_is_streamed():
    count, atoms = 3000, Atoms("Ar500", positions=np.zeros((500, 3)), cell=[50, 50, 50], pbc=True)

    def frames():
        rng = np.random.default_rng(0)
        for _ in range(count):
            atoms.positions += rng.normal(size=(500, 3))
            yield atoms.copy()

    size = count * 500 * 3 * 8
    tracemalloc.start()
    found = displacements(from_frames(frames, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 10
    assert found.squared[0, 0, 0] == pytest.approx(3, rel=0.01)
