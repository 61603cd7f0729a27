"""Files, restarts, replays and ways out of trouble."""

import dataclasses
import io
import shutil
import signal
from pathlib import Path

import ase.io
import h5py
import jax
import numpy as np
import pytest
import safetensors.numpy
from ase.build import bulk
from ase.constraints import FixAtoms
from safetensors import safe_open

import equipot
from equipot import config as yaml
from equipot import md
from equipot.data.batch import pad
from equipot.md import log
from equipot.md.ensembles import builtin
from equipot.md.plot import draw_log
from equipot.md.prepare import check_start, explain_start, read_structure, repeated, start_setup, with_conditions
from equipot.md.state import masses, thermal_momenta
from equipot.md.trajectory import TextFile
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.nequip import NequIP
from equipot.neighbors import neighbor_list, plan
from equipot.nn.radial import Radial
from equipot.structure import Structure
from equipot.units import kB

ENSEMBLES = [cls(barostat_fs=400.0) if cls.has_pressure else cls() for cls in builtin().values()]
FILES = ("log.csv", "trajectory.xyz", "config.yaml")
CUTOFF = 7.0
name = lambda x: type(x).__name__


def contents(folder):
    """Every byte of the files, and of the checkpoint's arrays and record (the order of its header is not defined)."""
    with safe_open(folder / "checkpoint.safetensors", "numpy") as file:
        arrays = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
        return files | arrays | file.metadata()


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=name)
def test_restart_is_exact(ensemble, potential, solid, configure, tmp_path):
    """A run that is cut in two, its files longer than its checkpoint, ends bit for bit like the one that was not."""
    config = configure(ensemble)
    md.simulate(potential, solid, config, tmp_path / "whole", progress=None)
    md.simulate(potential, solid, dataclasses.replace(config, steps=200), tmp_path / "cut", progress=None)
    for file in ("log.csv", "trajectory.xyz"):
        with open(tmp_path / "cut" / file, "a") as stream:
            stream.write("half a li")
    md.simulate(potential, solid, config, tmp_path / "cut", resume=True, progress=None)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    frames = ase.io.read(tmp_path / "whole" / "trajectory.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 100, 200, 300, 400]
    assert not np.array_equal(frames[-1].positions, frames[-2].positions)


@pytest.mark.parametrize("trajectory", [md.ExtXYZ(every=50), None], ids=name)
def test_a_run_that_ended_within_a_chunk_can_be_extended(trajectory, potential, solid, configure, tmp_path):
    """Frames and builds of the list are those of the run that was longer from the start; a finished run is left alone."""
    config = configure(md.NVTLangevin(), chunk_steps=100, trajectory=trajectory, steps=250)
    run = lambda steps, folder, **how: md.simulate(
        potential, solid, dataclasses.replace(config, steps=steps), tmp_path / folder, **{"progress": None} | how
    )
    run(250, "whole")
    run(120, "cut")
    before, told = contents(tmp_path / "cut"), io.StringIO()
    run(120, "cut", resume=True, progress=told)
    assert contents(tmp_path / "cut") == before
    assert "all 120 steps are done already" in told.getvalue()
    with pytest.raises(ValueError, match="steps is 110, but 120 are done already"):
        run(110, "cut", resume=True)
    run(250, "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    if trajectory is not None:
        frames = ase.io.read(tmp_path / "cut" / "trajectory.xyz", ":")
        assert [frame.info["step"] for frame in frames] == [0, 50, 100, 150, 200, 250]


@pytest.mark.parametrize("trajectory", [md.ExtXYZ(), md.H5MD()], ids=name)
def test_a_run_killed_before_its_first_checkpoint_starts_anew(trajectory, potential, solid, configure, tmp_path, monkeypatch):
    config = configure(md.NVE(), trajectory=trajectory, steps=0)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr("equipot.md.driver.write_checkpoint", lambda *anything: (_ for _ in ()).throw(InterruptedError))
        md.simulate(potential, solid, config, folder, progress=None)
    with open(folder / "log.csv", "a") as file:
        file.truncate(file.tell() - 40)
    md.simulate(potential, solid, config, folder, resume=True, progress=None)
    md.simulate(potential, solid, config, tmp_path / "whole", progress=None)
    kept = lambda folder: [(folder / name).read_bytes() for name in FILES if (folder / name).exists()]
    assert kept(folder) == kept(tmp_path / "whole")
    if isinstance(trajectory, md.H5MD):
        with h5py.File(folder / "trajectory.h5") as file:
            assert list(file["particles/trajectory/position/step"]) == [0]


def test_a_trajectory_that_cannot_be_written_is_named(potential, solid, configure, tmp_path):
    (tmp_path / "run" / "trajectory.h5").mkdir(parents=True)
    with pytest.raises(OSError, match=r"cannot write .*trajectory.h5"):
        md.simulate(potential, solid, configure(md.NVE(), trajectory=md.H5MD(), steps=0), tmp_path / "run", progress=None)


def test_a_log_without_its_checkpoint_is_not_cut(potential, solid, configure, tmp_path):
    config = configure(md.NVE(), steps=200)
    md.simulate(potential, solid, config, tmp_path / "run", progress=None)
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    before = (tmp_path / "run" / "log.csv").read_bytes()
    with pytest.raises(ValueError, match="whose checkpoint.safetensors is gone.*choose another folder"):
        md.simulate(potential, solid, config, tmp_path / "run", resume=True, progress=None)
    assert (tmp_path / "run" / "log.csv").read_bytes() == before


def test_frames_hold_what_the_model_says(potential, solid, configure, tmp_path):
    """Energy, forces, momenta and cell of each frame belong together, and to the lines of the log."""
    md.simulate(potential, solid, configure(ENSEMBLES[-1]), tmp_path / "run", progress=None)
    table = log.read(tmp_path / "run" / "log.csv")
    for frame in ase.io.read(tmp_path / "run" / "trajectory.xyz", ":"):
        known = equipot.evaluate(potential.astype("float64"), frame)
        row = int(np.flatnonzero(table["step"] == frame.info["step"])[0])
        assert frame.get_potential_energy() == pytest.approx(known.energy[0], abs=1e-6)
        assert frame.get_potential_energy() == pytest.approx(table["potential_eV"][row], abs=1e-6)
        np.testing.assert_allclose(frame.get_forces(), known.forces, atol=1e-6)
        assert frame.get_volume() == pytest.approx(table["volume_A3"][row], rel=1e-6)
        frame.set_masses("defaults")
        assert frame.get_kinetic_energy() == pytest.approx(table["kinetic_eV"][row], rel=1e-5)
        kinetic = 2 * frame.get_kinetic_energy() / frame.get_volume()
        pressure = (kinetic - np.trace(known.stress[0])) / 3 / equipot.units.GPa
        assert pressure == pytest.approx(table["pressure_GPa"][row], abs=1e-5)
    assert np.ptp(table["volume_A3"]) > 1


@pytest.mark.parametrize("ensemble", [md.NVE(), md.NPTIsotropic()], ids=name)
def test_pairs_that_come_in_all_at_once_are_no_explosion(ensemble, tmp_path):
    """A whole shell within one step leaves forces that are no numbers: the chunk is repeated with more room, and a run that
    is resumed keeps the room."""
    atoms = bulk("Si", "diamond", a=5.431, cubic=True) * (2, 2, 2)
    structure = Structure.from_ase(atoms, source="silicon")
    # The second shell is at 3.8403 Å.
    graph = jax.device_put(pad([structure], 3.835))
    term = NequIP(cutoff=3.835, channels=2, l_max=0, layers=1, elements=(14,), radial=Radial(mlp=(4,)))
    potential = fresh(term, graph, jax.random.key(0), Metadata(atomic_energies=((14, 0.0),)), avg_num_neighbors=4.0)
    config = md.MDConfig(
        "-", "-", ensemble, steps=8, timestep_fs=2.0, temperature_K=1000.0, log_every=2, chunk_steps=4, trajectory=None
    )
    told = io.StringIO()
    summary = md.simulate(potential, structure, config, tmp_path / "run", progress=told)
    assert summary.builds > 1 and "pairs within the cutoff" in told.getvalue()
    assert all(np.isfinite(column).all() for column in log.read(tmp_path / "run" / "log.csv").values())
    md.simulate(potential, structure, dataclasses.replace(config, steps=4), tmp_path / "cut", progress=None)
    assert md.simulate(potential, structure, config, tmp_path / "cut", resume=True, progress=None).builds == 1
    assert contents(tmp_path / "cut") == contents(tmp_path / "run")


def test_overflow_is_replayed(potential, solid, configure, tmp_path, monkeypatch):
    """A list that is too small is noticed, and the run is the same as one that had room from the start."""
    config = configure(md.NVE(), initial_temperature_K=80.0)
    room = md.simulate(potential, solid, config, tmp_path / "room", progress=None)
    degree = np.bincount(neighbor_list(solid.positions, solid.cell, solid.pbc, CUTOFF + config.skin).centers).max()
    tight = dataclasses.replace(plan(solid.positions, solid.cell, solid.pbc, CUTOFF, config.skin), slots=int(degree))
    monkeypatch.setattr("equipot.md.driver.start_list", lambda *anything: tight)
    told = io.StringIO()
    grown = md.simulate(potential, solid, config, tmp_path / "tight", progress=told)
    assert grown.builds > room.builds == 1
    assert "the neighbour list was too small; repeating from step" in told.getvalue()
    first, second = (log.read(tmp_path / folder / "log.csv") for folder in ("room", "tight"))
    for column in first:
        np.testing.assert_allclose(second[column], first[column], rtol=1e-8, atol=1e-8)


def test_explosion_stops_with_the_last_frames(potential, solid, configure, tmp_path):
    positions = solid.positions.copy()
    positions[1] = positions[0] + [1.5, 0, 0]
    close = solid.replace(positions=positions)
    with pytest.raises(md.Explosion, match=r"step \d+: the temperature is .* K .*shorter time step.* good state is step 0"):
        md.simulate(potential, close, configure(md.NVE()), tmp_path / "run", progress=None)
    frames = ase.io.read(tmp_path / "run" / "trajectory.xyz", ":")
    steps = log.read(tmp_path / "run" / "log.csv")["step"]
    assert len(frames) >= 2 and steps[-1] <= frames[-1].info["step"] < 400
    distance = lambda frame: np.linalg.norm(frame.positions[1] - frame.positions[0])
    assert distance(frames[0]) == pytest.approx(1.5) and distance(frames[-1]) > 3
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


class Impatient(io.StringIO):
    """A person who presses Ctrl-C as soon as there is something to see."""

    pressed = False

    def write(self, text):
        if text.startswith("step") and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_interrupt_finishes_the_chunk(potential, solid, configure, tmp_path):
    config, before = configure(md.NVE()), signal.getsignal(signal.SIGINT)
    told = Impatient()
    with pytest.raises(KeyboardInterrupt, match="stopped at step 200 of 400; continue with resume"):
        md.simulate(potential, solid, config, tmp_path / "run", progress=told)
    assert "stopping after this chunk" in told.getvalue()
    assert signal.getsignal(signal.SIGINT) is before
    md.simulate(potential, solid, config, tmp_path / "run", resume=True, progress=None)
    md.simulate(potential, solid, config, tmp_path / "whole", progress=None)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_h5md(potential, solid, configure, tmp_path):
    """The same frames as in the text, also after a restart from a file that a kill left open."""
    config = configure(md.NVE(), trajectory=md.H5MD())
    md.simulate(potential, solid, configure(md.NVE()), tmp_path / "text", progress=None)
    md.simulate(potential, solid, dataclasses.replace(config, steps=200), tmp_path / "run", progress=None)
    path = tmp_path / "run" / "trajectory.h5"
    with h5py.File(path, "r+", libver="latest") as file:
        file.swmr_mode = True
        data = file["particles/trajectory/position/value"]
        data.resize(len(data) + 1, axis=0)
        data.flush()
        shutil.copy(path, tmp_path / "killed.h5")
    shutil.copy(tmp_path / "killed.h5", path)
    md.simulate(potential, solid, config, tmp_path / "run", resume=True, progress=None)
    frames = ase.io.read(tmp_path / "text" / "trajectory.xyz", ":")
    with h5py.File(path) as file:
        assert list(file["h5md"].attrs["version"]) == [1, 1]
        group = file["particles/trajectory"]
        assert list(group["position/step"]) == [0, 100, 200, 300, 400] == [frame.info["step"] for frame in frames]
        assert list(group["position/time"]) == [0, 400, 800, 1200, 1600]
        assert group["position/value"].attrs["unit"] == "Angstrom"
        assert list(group["species"]) == list(solid.numbers)
        for k, frame in enumerate(frames):
            np.testing.assert_allclose(group["position/value"][k], frame.positions, atol=1e-5)
            velocities = frame.get_momenta() / frame.get_masses()[:, None] * equipot.units.fs
            np.testing.assert_allclose(group["velocity/value"][k], velocities, atol=1e-8)
            force = group["force/value"][k] * equipot.units.kJ_per_mol
            np.testing.assert_allclose(force, frame.get_forces(), atol=1e-6)
            np.testing.assert_allclose(group["box/edges/value"][k], frame.cell[:], atol=1e-8)
            assert group["observables/potential_energy/value"][k] == pytest.approx(frame.get_potential_energy())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_failed_write_names_the_file(tmp_path):
    (tmp_path / "log.csv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device: .*log.csv"):
        TextFile(tmp_path / "log.csv").append("step\n")


def test_from_files(potential, solid, tmp_path):
    """The way of the command line: a config, a potential and a structure in files; float32."""
    equipot.save(potential.astype("float32"), tmp_path / "lj.eqp")
    atoms = solid.to_ase()
    ase.io.write(tmp_path / "start.xyz", [atoms, atoms[:4]])
    text = f"""
model: {tmp_path}/lj.eqp
structure: {tmp_path}/start.xyz
ensemble: {{kind: NVE}}
steps: 20
timestep_fs: 4
temperature_K: 40
skin: 0.8
"""
    (tmp_path / "md.yaml").write_text(text)
    told = io.StringIO()
    summary = md.run(yaml.load(tmp_path / "md.yaml", md.MDConfig), tmp_path / "out", progress=told)
    assert summary.steps == 20
    table = log.read(tmp_path / "out" / "log.csv")
    assert list(table["step"]) == [0, 10, 20]
    assert table["temperature_K"][0] == pytest.approx(40, rel=1e-5)
    assert table["potential_eV"][0] == pytest.approx(-32 * 251.5, rel=1e-3)
    assert (tmp_path / "out" / "md.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "Molecular dynamics: out" in (tmp_path / "out" / "md.html").read_text()
        and "could not be written" not in told.getvalue()
    )
    assert "NVE: 32 atoms, 40 K, 20 steps of 4 fs" in told.getvalue()
    assert yaml.load(tmp_path / "out" / "config.yaml", md.MDConfig).steps == 20


def broken(solid, kind):
    """Structures that cannot be run."""
    positions, cell = solid.positions.copy(), solid.cell.copy()
    match kind:
        case "unknown element":
            return solid.replace(numbers=np.full(len(solid), 29))
        case "no volume":
            cell[2] = cell[1]
            return solid.replace(cell=cell)
        case "same place":
            positions[7] = positions[3] + cell[0]
            return solid.replace(positions=positions)
        case "no mass":
            return solid.replace(masses=np.where(np.arange(len(solid)) == 6, 0.0, 20.0))
        case "not finite":
            positions[5, 1] = np.nan
            return solid.replace(positions=positions)
    return Structure(np.zeros(0), np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unknown element", "does not know Cu"),
        ("no volume", "no volume"),
        ("same place", "atoms 3 and 7 .* 0.000 Å apart"),
        ("not finite", "position of atom 5"),
        ("no mass", "mass of atom 6 is 0.0 amu"),
        ("empty", "no atoms"),
    ],
)
def test_structures_that_cannot_be_run(kind, message, potential, solid, configure, tmp_path):
    with pytest.raises(ValueError, match=message):
        md.simulate(potential, broken(solid, kind), configure(md.NVE()), tmp_path / "run", progress=None)
    assert not (tmp_path / "run").exists()


def test_pressure_needs_a_cell(potential, solid, configure, tmp_path):
    slab = solid.replace(pbc=np.array([True, True, False]))
    with pytest.raises(ValueError, match="open along c: NPTFlexible needs a periodic cell"):
        md.simulate(potential, slab, configure(ENSEMBLES[-1]), tmp_path / "run", progress=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep_fs": 100.0}, "timestep_fs is 100.0: no atomic vibration"),
        ({"timestep_fs": 0.0}, "timestep_fs is 0.0; give a number above zero"),
        ({"steps": 405}, "steps .405. is not a multiple of log_every .10.; 400 would be"),
        ({"trajectory": md.ExtXYZ(every=15)}, "every .15. must be a multiple of log_every"),
        ({"pressure_GPa": 1.0}, "NVE has none; choose NPTIsotropic or NPTFlexible"),
        ({"temperature_K": float("nan")}, "temperature_K is nan"),
        ({"repeat": (1, 0, 1)}, "repeat is"),
        ({"velocities": "file", "initial_temperature_K": 10.0}, "initial_temperature_K is 10.0, but velocities is file"),
        ({"seed": -1}, "seed is -1; give a whole number from 0"),
        ({"seed": 2**32}, "seed is 4294967296; give"),
        ({"pressure_GPa": float("nan")}, "pressure_GPa is nan; give a number"),
        ({"skin": float("inf")}, "skin is inf"),
    ],
)
def test_configs_that_make_no_sense(changes, message, configure):
    with pytest.raises(ValueError, match=message):
        configure(md.NVE(), **changes)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("NVTLangevin", {"friction_per_ps": -1.0}, "friction_per_ps is -1.0; give a number above zero"),
        ("NVTCSVR", {"thermostat_fs": float("nan")}, "thermostat_fs is nan"),
        ("NVTNoseHoover", {"chain_length": 1}, "chain_length is 1; a chain needs at least 2 links"),
        ("NPTIsotropic", {"barostat_fs": 0.0}, "barostat_fs is 0.0"),
        ("NPTFlexible", {"barostat_friction_per_ps": float("inf")}, "barostat_friction_per_ps is inf"),
    ],
)
def test_ensembles_that_make_no_sense(kind, parameters, message):
    with pytest.raises(ValueError, match=message):
        getattr(md, kind)(**parameters)
    with pytest.raises(ValueError, match=f"ensemble: {message}"):
        yaml.build(md.MDConfig, {"model": "-", "structure": "-", "ensemble": {"kind": kind, **parameters}})


@pytest.mark.parametrize("changes", [{"initial_temperature_K": 0.0}, {"velocities": "file"}], ids=["cold", "still"])
def test_rescaling_velocities_needs_some(changes, potential, solid, configure, tmp_path):
    still = solid.replace(momenta=np.zeros((len(solid), 3)))
    with pytest.raises(ValueError, match="cannot start from rest; choose NVTLangevin"):
        md.simulate(potential, still, configure(md.NVTCSVR(), **changes), tmp_path / "run", progress=None)
    assert not (tmp_path / "run").exists()


def test_single_precision_does_not_depend_on_the_distance_from_the_origin(potential, solid, configure, tmp_path):
    offset = np.array([4096.0, -8192.0, 2048.0])
    config = configure(md.NVE(), steps=200, dtype="float32")
    cluster = solid.replace(pbc=np.zeros(3, bool), cell=np.zeros((3, 3)), charge=1.0)
    for name, structure in (("near", cluster), ("far", cluster.replace(positions=cluster.positions + offset))):
        md.simulate(potential, structure, config, tmp_path / name, progress=None)
    near, far = (ase.io.read(tmp_path / name / "trajectory.xyz", ":") for name in ("near", "far"))
    assert len(near) == len(far) == 3
    for a, b in zip(near, far, strict=True):
        np.testing.assert_allclose(b.positions - offset, a.positions, atol=1e-5)
        np.testing.assert_allclose(b.get_momenta(), a.get_momenta(), atol=1e-4)
        assert a.info["charge"] == b.info["charge"] == 1.0
    np.testing.assert_allclose(near[0].positions, cluster.positions, atol=1e-5)


def test_charge_and_spin_of_the_config_win_and_reach_model_and_trajectory(potential, solid, configure, tmp_path):
    """The files of a run restart it in its own state; a potential that knows another charge refuses."""
    config = configure(md.NVE(), steps=20, charge=2.0, spin=1.0)
    md.simulate(potential, solid.replace(charge=1.0), config, tmp_path / "run", progress=None)
    frame = ase.io.read(tmp_path / "run" / "trajectory.xyz")
    assert (frame.info["charge"], frame.info["spin"]) == (2.0, 1.0)
    setup = start_setup(config, with_conditions(config, solid), np.dtype("float64"))
    assert (setup.charge, setup.spin) == (2.0, 1.0)
    neutral = potential.replace(metadata=dataclasses.replace(potential.metadata, charges=(0.0,)))
    with pytest.raises(ValueError, match="solid: has charge 2, but the potential was trained on 0"):
        md.simulate(neutral, solid, config, tmp_path / "other", progress=None)
    md.simulate(
        neutral, solid.replace(charge=1.0), configure(md.NVE(), steps=20, charge=0.0), tmp_path / "third", progress=None
    )


def test_long_time_steps_get_a_warning(potential, solid, configure):
    told = []
    check_start(configure(md.NVE(), timestep_fs=8.0), potential, solid, told.append)
    assert told[0].startswith("warning: timestep_fs is 8.0, long for atoms of 20.2 amu")
    check_start(configure(md.NVE()), potential, solid, told.append)
    assert len(told) == 1


def test_constrained_atoms_are_refused(potential, solid, configure, tmp_path):
    atoms = solid.to_ase()
    atoms.set_constraint(FixAtoms([0, 3]))
    ase.io.write(tmp_path / "start.xyz", atoms)
    with pytest.raises(ValueError, match=r"start.xyz, frame 0: the atoms are constrained \(FixAtoms\).*remove the constraints"):
        check_start(configure(md.NVE()), potential, read_structure(str(tmp_path / "start.xyz"), 0, (1, 1, 1)), print)
    with pytest.raises(ValueError, match=r"constrained \(FixAtoms\)"):
        md.simulate(potential, Structure.from_ase(atoms), configure(md.NVE()), tmp_path / "run", progress=None)


@pytest.mark.parametrize("trajectory", [md.ExtXYZ(), md.H5MD()], ids=name)
def test_masses_of_the_file(trajectory, potential, solid, configure, tmp_path):
    """Four times the masses and twice the time step: the same path, the same temperature."""
    atoms = solid.to_ase()
    atoms.set_masses(4 * atoms.get_masses())
    ase.io.write(tmp_path / "heavy.xyz", atoms)
    heavy = read_structure(str(tmp_path / "heavy.xyz"), 0, (1, 1, 1)).replace(positions=solid.positions, cell=solid.cell)
    config = configure(md.NVE(), steps=200, timestep_fs=2.0, trajectory=trajectory)
    slow = dataclasses.replace(config, timestep_fs=4.0)
    md.simulate(potential, solid, config, tmp_path / "light", progress=None)
    told = io.StringIO()
    md.simulate(potential, heavy, slow, tmp_path / "heavy", progress=told)
    assert "masses other than the standard ones, 80.7188 to 159.792 amu; they are used" in told.getvalue()
    first, second = (log.read(tmp_path / folder / "log.csv") for folder in ("light", "heavy"))
    for column in ("temperature_K", "total_eV", "pressure_GPa"):
        np.testing.assert_allclose(second[column], first[column], rtol=1e-9, atol=1e-12)
    if isinstance(trajectory, md.H5MD):
        with h5py.File(tmp_path / "heavy" / "trajectory.h5") as file:
            np.testing.assert_allclose(file["particles/trajectory/mass"], atoms.get_masses())
    else:
        last = ase.io.read(tmp_path / "heavy" / "trajectory.xyz", -1)
        assert last.get_kinetic_energy() == pytest.approx(second["kinetic_eV"][-1], rel=1e-5)
    with pytest.raises(ValueError, match="another potential or another structure"):
        md.simulate(potential, heavy.replace(masses=None), slow, tmp_path / "heavy", resume=True, progress=None)


def test_velocities_of_the_file(potential, solid, configure, tmp_path):
    """A run from the last frame of another goes on from there; the momenta are part of what resume compares."""
    config = configure(md.NVE(), steps=200)
    md.simulate(potential, solid, config, tmp_path / "whole", progress=None)
    start = read_structure(str(tmp_path / "whole" / "trajectory.xyz"), 1, (1, 1, 1))
    going = dataclasses.replace(config, velocities="file", steps=100)
    told = io.StringIO()
    md.simulate(potential, start, going, tmp_path / "rest", progress=told)
    assert "momenta" not in told.getvalue() and "warning" not in told.getvalue()
    assert "NVE: 32 atoms, velocities of the file, 100 steps" in told.getvalue()
    whole, rest = (log.read(tmp_path / folder / "log.csv") for folder in ("whole", "rest"))
    for column in ("temperature_K", "total_eV", "pressure_GPa"):
        np.testing.assert_allclose(rest[column], whole[column][10:], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="another potential or another structure"):
        other = start.replace(momenta=2 * start.momenta)
        md.simulate(potential, other, going, tmp_path / "rest", resume=True, progress=None)
    md.simulate(potential, start, dataclasses.replace(config, steps=0), tmp_path / "drawn", progress=told)
    assert "frame 1 has momenta; they are not used, velocities are drawn anew (velocities: file" in told.getvalue()


def test_velocities_that_deserve_a_word(potential, solid, configure):
    config, told = configure(md.NVE(), velocities="file"), []
    with pytest.raises(ValueError, match="velocities is file, but solid has no momenta"):
        check_start(config, potential, solid, told.append)
    with pytest.raises(ValueError, match="momentum of atom 4 is not finite"):
        momenta = np.where(np.arange(len(solid))[:, None] == 4, np.nan, np.zeros((1, 3)))
        check_start(config, potential, solid.replace(momenta=momenta), told.append)
    momenta = thermal_momenta(solid, 40.0, seed=1)
    explain_start(config, solid.replace(momenta=momenta), told.append)
    assert not told
    drifting = solid.replace(momenta=momenta + 0.5 * masses(solid) * np.sqrt(kB * 40.0 / 20.0))
    explain_start(config, drifting, told.append)
    assert len(told) == 1 and "is motion of the system as a whole" in told[0]
    explain_start(configure(md.NVTLangevin(), velocities="file"), drifting, told.append)
    assert len(told) == 1


def test_copies_have_their_masses_and_momenta(solid):
    atoms = solid.to_ase()[:3]
    atoms.set_masses([1.0, 2.0, 3.0])
    atoms.set_momenta(np.arange(9.0).reshape(3, 3))
    copies, expected = repeated(Structure.from_ase(atoms), (2, 1, 1)), atoms * (2, 1, 1)
    assert np.array_equal(copies.masses, expected.get_masses())
    assert np.array_equal(copies.momenta, expected.get_momenta())


def test_the_frame_can_stand_behind_the_file(solid, tmp_path):
    path = str(tmp_path / "start.xyz")
    ase.io.write(path, [solid.to_ase(), solid.to_ase()[:4], solid.to_ase()[:6]])
    size = lambda source, frame=0: len(read_structure(source, frame, (1, 1, 1)))
    assert (size(f"{path}@1"), size(f"{path}@-1"), size(f"{path}@0"), size(f"{path}@1", 1)) == (4, 6, 32, 4)
    assert size("bundled:ethanol/test@2") == 9
    refused = {"@5": "no frames in @5, there are 3", "@0:2": "@0:2 is not one frame", "@1": "and frame 2 are two frames"}
    for index, message in refused.items():
        with pytest.raises(ValueError, match=message):
            size(path + index, 2 if index == "@1" else 0)
    ase.io.write(tmp_path / "a@1", solid.to_ase()[:3], format="extxyz")
    assert size(str(tmp_path / "a@1")) == 3


def test_types_of_a_dump_are_no_elements(tmp_path):
    path = tmp_path / "start.lammpstrj"
    box = "ITEM: BOX BOUNDS pp pp pp\n0 4\n0 4\n0 4\nITEM: ATOMS id type x y z\n1 1 0 0 0\n2 1 1 1 1\n"
    path.write_text("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\n" + box)
    with pytest.raises(ValueError, match=r"has numbers of atom types \(up to 1\), not elements; name them in types"):
        read_structure(str(path), 0, (1, 1, 1))
    assert read_structure(str(path), 0, (1, 1, 1), ("C",)).numbers.tolist() == [6, 6]


def test_copies_of_the_cell(solid, tmp_path):
    ase.io.write(tmp_path / "start.xyz", [solid.to_ase(), solid.to_ase()[:4]])
    grown = read_structure(str(tmp_path / "start.xyz"), -1, (1, 3, 2))
    expected = solid.to_ase()[:4] * (1, 3, 2)
    assert np.array_equal(grown.numbers, expected.numbers)
    np.testing.assert_allclose(grown.positions, expected.positions)
    np.testing.assert_allclose(grown.cell, expected.cell[:])
    for frame, repeat, message in ((2, (1, 1, 1), "no frames in @2, there are 2"), (0, (1, 1, 1), "no such file")):
        path = tmp_path / ("start.xyz" if frame else "none.xyz")
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_structure(str(path), frame, repeat)
    (tmp_path / "text.xyz").write_text("not a structure\n")
    with pytest.raises(ValueError, match="text.xyz, frame 0 .*; is this an extended XYZ file"):
        read_structure(str(tmp_path / "text.xyz"), 0, (1, 1, 1))
    ase.io.write(tmp_path / "slab.xyz", solid.replace(pbc=np.array([True, True, False])).to_ase())
    with pytest.raises(ValueError, match="does not repeat along c"):
        read_structure(str(tmp_path / "slab.xyz"), 0, (1, 1, 2))


def test_resume_refuses_what_is_not_the_same(potential, solid, configure, tmp_path):
    config = configure(md.NVE(), steps=200)
    md.simulate(potential, solid, config, tmp_path / "run", progress=None)
    again = lambda *what: md.simulate(*what, tmp_path / "run", resume=True, progress=None)
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        again(potential, solid, dataclasses.replace(config, seed=1))
    with pytest.raises(ValueError, match="dtype was float64 and is float32"):
        again(potential, solid, dataclasses.replace(config, dtype="float32"))
    with pytest.raises(ValueError, match="another potential or another structure"):
        again(potential, solid.replace(charge=1.0), config)
    with pytest.raises(ValueError, match="another potential or another structure"):
        again(potential, solid.replace(positions=solid.positions + 0.1), config)
    with pytest.raises(ValueError, match="steps is 100, but 200 are done already"):
        again(potential, solid, dataclasses.replace(config, steps=100))
    with pytest.raises(ValueError, match="holds a run already"):
        md.simulate(potential, solid, config, tmp_path / "run", progress=None)
    path = tmp_path / "run" / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        again(potential, solid, config)
    for name in (b'"sha256"', b'"equipot"'):
        renamed = bytes(data).replace(name, name.upper(), 1)
        assert renamed != bytes(data)
        path.write_bytes(renamed)
        with pytest.raises(ValueError, match="damaged"):
            again(potential, solid, config)
    earlier = {"format": "equipot md 2", "record": "{}", "sha256": ""}
    path.write_bytes(safetensors.numpy.save({"0000": np.zeros(3)}, earlier))
    with pytest.raises(ValueError, match="written by an earlier version of equipot.*velocities: file"):
        again(potential, solid, config)
    path.write_bytes(data[:1000])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        again(potential, solid, config)


def test_the_slope_of_a_random_walk_comes_with_its_error():
    x = np.linspace(0, 1, 400)
    rng = np.random.default_rng(1)
    walks = 3.0 * x + np.cumsum(rng.normal(size=(400, 400)), axis=1)
    missed = [(value - 3.0) / error for value, error in (log.slope(x, walk, is_random_walk=True) for walk in walks)]
    # A t distribution of about eight degrees of freedom has a variance of 8/6.
    assert 0.9 < np.var(missed) < 2.0 and abs(np.mean(missed)) < 0.3
    # The error of a line with independent blocks would be far too small.
    assert np.var([(value - 3.0) / error for value, error in (log.slope(x, walk) for walk in walks)]) > 4


def test_a_drift_is_only_stated_beyond_its_error():
    assert log.describe_drift(-93.0, 60.0, 2.5) == "no drift of the conserved energy beyond its statistical error"
    assert log.describe_drift(-93.0, 7.0, 2.5) == "the conserved energy changes by -0.23 ± 0.02 meV/atom in its 2.5 ps"
    assert log.describe_drift(-93.0, 6.0, 500.0) == "drift of the conserved energy -93 ± 6 meV/atom/ns"
    assert "too short" in log.describe_drift(-93.0, np.nan, 2.5)


@pytest.mark.parametrize("periodic", [True, False])
def test_the_picture_holds_all_of_its_labels(periodic):
    time, nothing = np.arange(50.0), np.full(50, np.nan)
    table = dict.fromkeys(log.Line._fields, time) | ({} if periodic else {"pressure_GPa": nothing, "volume_A3": nothing})
    figure = draw_log(table)
    figure.canvas.draw()
    labels = [label for axis in figure.axes for label in (axis.xaxis.label, axis.yaxis.label)]
    assert len(labels) == (8 if periodic else 4)
    for label in labels:
        box = label.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1 and 0 <= box.y0 < box.y1 <= figure.bbox.y1, label.get_text()


def test_a_slope_comes_with_its_error():
    x = np.linspace(0, 1, 400)
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(300):
        noise = np.convolve(rng.normal(size=409), np.ones(10) / 10, "valid")  # correlated over ten lines
        value, error = log.slope(x, 3.0 * x + noise)
        missed.append((value - 3.0) / error)
    # A t distribution of eight degrees of freedom has a variance of 8/6.
    assert 0.9 < np.var(missed) < 2.0 and abs(np.mean(missed)) < 0.3
    assert np.isnan(log.slope(x[:2], x[:2])).all() and log.slope(x[:9], 2 * x[:9])[0] == pytest.approx(2.0)
