"""Labels of Hessians made by calculators and by potentials, and the command."""

import io
import json

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.io import read as ase_read
from ase.io import write

from equipot import cli, eqp
from equipot.console import Console
from equipot.data.batch import pad
from equipot.data.method import Runner
from equipot.data.read import read
from equipot.hessian_labels import is_whole
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, initial
from equipot.quantities import HESSIAN
from equipot.structure import Structure
from equipot.workflows.hessians import Differences, HessianConfig, label_hessians, source_of

EPSILON, SIGMA, CUTOFF = 0.05, 2.2, 7.0
OPTIONS = {"epsilon": EPSILON, "sigma": SIGMA, "rc": CUTOFF, "ro": 0.66 * CUTOFF, "smooth": True}


def frames():
    """A dimer, and clusters of three and four atoms."""
    rng = np.random.default_rng(0)
    grid = 2.5 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    clusters = [Atoms(f"Ar{n}", grid[:n] + rng.normal(0, 0.1, (n, 3))) for n in (3, 4)]
    return [Atoms("Ar2", [[0, 0, 0], [2.6, 0, 0]]), *clusters]


def structures():
    return [Structure.from_ase(atoms, f"made, frame {k}") for k, atoms in enumerate(frames())]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The same Lennard-Jones as a potential in a file."""
    path, term = tmp_path_factory.mktemp("model") / "lj.eqp", LennardJones(cutoff=CUTOFF, epsilon=EPSILON, sigma=SIGMA)
    with jax.enable_x64(True):
        variables = initial(term, jax.random.key(0), pad(structures(), CUTOFF))
        eqp.save(Potential(term, variables, Metadata(atomic_energies=((18, -3.0),))).astype("float64"), path)
    return path


def dimer():
    """Second derivatives of the dimer, 2.6 Å along x, in closed form."""
    x, r = (SIGMA / 2.6) ** 6, 2.6
    first, second = 4 * EPSILON * (-12 * x**2 + 6 * x) / r, 4 * EPSILON * (156 * x**2 - 42 * x) / r**2
    block = np.diag([second, first / r, first / r])
    return np.block([[block, -block], [-block, block]])


def label(out, **settings):
    config = HessianConfig(**{"options": OPTIONS, **settings})
    found = label_hessians(structures(), source_of("lj", config), config, out, Console(io.StringIO()))
    return found, read(out)


@pytest.mark.parametrize("suffix", ["xyz", "h5"])
def test_differences_are_the_closed_form_and_the_exact_ones(suffix, model, tmp_path):
    found, labelled = label(tmp_path / f"a.{suffix}")
    assert (found.labelled, found.kept, found.failures) == (3, 0, ()) and found.asymmetry < 1e-4
    np.testing.assert_allclose(labelled[0].labels[HESSIAN].reshape(6, 6), dimer(), atol=1e-3)
    assert not (tmp_path / f"a.{suffix}.frames").exists()
    argv = ["hessian", str(tmp_path / "frames.xyz"), "--calculator", str(model), "--out", str(tmp_path / "b.h5")]
    write(tmp_path / "frames.xyz", frames())
    assert cli.main(argv) == 0
    exact = read(tmp_path / "b.h5")
    np.testing.assert_allclose(exact[0].labels[HESSIAN].reshape(6, 6), dimer(), rtol=1e-9, atol=1e-9)
    for a, b in zip(labelled, exact, strict=True):
        # The error of central differences grows with the square of the step.
        np.testing.assert_allclose(a.labels[HESSIAN], b.labels[HESSIAN], atol=2e-3)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-7)
        assert b.energy == pytest.approx(a.energy - 3.0 * len(a), abs=1e-7)
    half = label(tmp_path / "c.h5", step=0.0025)[1]
    error = [np.abs(frames[0].labels[HESSIAN].reshape(6, 6) - dimer()).max() for frames in (read(tmp_path / "c.h5"), labelled)]
    assert error[1] / error[0] == pytest.approx(4, rel=0.1) and len(half) == 3


@pytest.mark.parametrize("part", ["columns", "projections"])
def test_a_part_of_a_hessian(part, model, tmp_path):
    whole = label(tmp_path / "a.h5")[1]
    found = label(tmp_path / "b.h5", **{part: 7})[1]
    # The dimer has six columns: as many products hold nothing else than the matrix.
    assert [is_whole(s.labels[HESSIAN]) for s in found] == [True, False, False]
    for s, reference in list(zip(found, whole, strict=True))[1:]:
        directions, expected = s.labels[HESSIAN][:, 0], reference.labels[HESSIAN]
        assert len(directions) == 7
        np.testing.assert_allclose(np.linalg.norm(directions, axis=(1, 2)), 1)
        np.testing.assert_allclose(s.labels[HESSIAN][:, 1], np.einsum("iajb,kjb->kia", expected, directions), atol=1e-2)
        assert np.array_equal(np.unique(directions), [0, 1]) == (part == "columns")
    again, other = (label(tmp_path / f"{seed}.h5", **{part: 7}, seed=seed)[1] for seed in (0, 1))
    np.testing.assert_array_equal(again[2].labels[HESSIAN], found[2].labels[HESSIAN])
    assert not np.array_equal(other[2].labels[HESSIAN], found[2].labels[HESSIAN])


def test_a_run_that_is_killed_goes_on_with_the_next_frame(tmp_path, monkeypatch):
    calls, run = [], Runner.run

    def counted(self, structure, most=15):
        calls.append(len(structure))
        if len(calls) > most:
            raise KeyboardInterrupt
        return run(self, structure)

    monkeypatch.setattr(Runner, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        label(tmp_path / "a.xyz")
    assert not (tmp_path / "a.xyz").exists() and len(list((tmp_path / "a.xyz.frames").iterdir())) == 1
    calls.clear()
    monkeypatch.setattr(Runner, "run", lambda self, structure: counted(self, structure, 1000))
    found, labelled = label(tmp_path / "a.xyz")
    # Of the dimer nothing is computed again; 6 displacements of each atom, and the frame itself.
    assert found.kept == 1 and calls == [3] * 19 + [4] * 25 and len(labelled) == 3
    # Another step is another calculation.
    assert label(tmp_path / "a.xyz", step=0.01)[0].kept == 0


def test_a_frame_that_fails_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    run = Runner.run

    def failing(self, structure):
        if len(structure) == 3:
            raise ValueError(f"{structure.name}: lj failed (no convergence); correct the structure or leave it out")
        return run(self, structure)

    monkeypatch.setattr(Runner, "run", failing)
    write(tmp_path / "frames.xyz", frames())
    argv = ["hessian", str(tmp_path / "frames.xyz"), "--calculator", "lj", "--out", str(tmp_path / "a.xyz")]
    assert cli.main([*argv, "--set", f"options={json.dumps(OPTIONS)}"]) == 1
    said = capsys.readouterr()
    assert "2 of 3 frames" in said.out and "left out: " in said.err and "frame 1: lj failed (no convergence)" in said.err
    assert [len(s) for s in read(tmp_path / "a.xyz")] == [2, 4]
    # What is done stays for the next try.
    monkeypatch.setattr(Runner, "run", run)
    assert cli.main([*argv, "--set", f"options={json.dumps(OPTIONS)}"]) == 0
    assert "3 of 3 frames" in (said := capsys.readouterr().out) and "2 of them done before" in said


def test_differences_that_are_noise_are_told(tmp_path, monkeypatch):
    rng, run = np.random.default_rng(0), Runner.run

    def noisy(self, structure):
        found = run(self, structure)
        return {
            row: value + (0.02 * rng.normal(size=value.shape) if row.name == "forces" else 0) for row, value in found.items()
        }

    monkeypatch.setattr(Runner, "run", noisy)
    found, _ = label(tmp_path / "a.h5")
    assert len(found.failures) == 3 and "frame 0: differences of forces are not symmetric by" in found.failures[0]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--calculator", "lj", "--out", "a.npz"], "Hessians are written as .xyz, .extxyz, .h5 or .hdf5"),
        (["--calculator", "nowhere.eqp", "--out", "a.xyz"], "nowhere.eqp"),
        (["--calculator", "lj", "--out", "a.xyz", "--step", "0"], "step 0.0 Å must be positive and at most 0.1"),
        (["--calculator", "lj", "--out", "a.xyz", "--columns", "0"], "columns 0 must be at least 1"),
        (["--calculator", "lj", "--out", "a.xyz", "--set", "options.sgma=1"], "lj has no option 'sgma'; did you mean `sigma`?"),
        (["--calculator", "gfn3-xtb", "--out", "a.xyz"], "gfn3-xtb"),
    ],
)
def test_what_is_refused(argv, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("frames.xyz", frames())
    assert cli.main(["hessian", "frames.xyz", *argv]) == 2
    assert complaint in capsys.readouterr().err and not list(tmp_path.glob("a*"))


def test_a_file_of_hessians_is_data_like_any_other(tmp_path, capsys):
    label(tmp_path / "a.xyz")
    assert cli.main(["data", str(tmp_path / "a.xyz"), "--set", "checks.force_zero=skip"]) == 0
    said = capsys.readouterr().out
    assert "hessian in all" in said and "eV/Å^2, standard deviation" in said
    assert "hessian" in ase_read(tmp_path / "a.xyz").info


def test_xtb_by_its_name(tmp_path):
    """Water by GFN2-xTB: three modes near those of experiment, 1595, 3657 and 3756 cm^-1."""
    pytest.importorskip("tblite")
    from equipot.training.hessian_errors import frequencies

    config = HessianConfig(options={"accuracy": 0.01})
    source = source_of("gfn2-xtb", config)
    assert isinstance(source, Differences) and source.runner.method.keywords["method"] == "GFN2-xTB"
    water = Structure([8, 1, 1], [[0, 0, 0.115], [0, 0.767, -0.463], [0, -0.767, -0.463]])
    found = label_hessians([water], source, config, tmp_path / "a.h5", Console(None))
    assert found.asymmetry < 1e-3
    modes = frequencies(water, read(tmp_path / "a.h5")[0].labels[HESSIAN])
    np.testing.assert_allclose(modes, [1595, 3657, 3756], rtol=0.08)
