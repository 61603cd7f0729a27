"""The command ``equipot evaluate`` with a potential that has an estimate of its uncertainty: file, lines and table."""

from __future__ import annotations

import dataclasses
import json
import re

import ase.io
import jax
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

import equipot
from equipot import cli, uncertainty
from equipot.data.batch import pad
from equipot.data.method import method_of
from equipot.data.read import read
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.quantities import ENERGY_STD, FORCES_STD, NOVELTY, STRESS_STD
from equipot.structure import Structure
from equipot.training.errors import predict
from equipot.uncertainty.summary import summary

TERM = MACE(4.0, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))
PAIRS = {"calculator": "lj", "rc": 4.0, "epsilon": 1e-3, "sigma": 1.0}


def frames_of(count):
    """Frames of water, of which every other one repeats."""
    rng, out = np.random.default_rng(0), []
    for k in range(count):
        atoms = molecule("H2O", vacuum=2.0) if k % 2 else molecule("H2O")
        atoms.pbc = bool(k % 2)
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        out.append(atoms)
    return out


def labelled(potential, frames, method=None):
    """Frames with the predictions of a potential as labels, and errors of known size."""
    rng = np.random.default_rng(1)
    for atoms, found in zip(frames, equipot.evaluate_each(potential, frames, method=method), strict=True):
        errors = {"energy": float(found.energy) + 0.05 * rng.normal(), "forces": found.forces + 0.1 * rng.normal(size=(3, 3))}
        if found.stress is not None:
            noise = 1e-3 * rng.normal(size=(3, 3))
            errors["stress"] = (found.stress + noise + noise.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        atoms.calc = SinglePointCalculator(atoms, **errors)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labelled frames, and potentials without an estimate, with one, and with one of a correction to Lennard-Jones pairs."""
    out, frames = tmp_path_factory.mktemp("evaluate"), frames_of(48)
    metadata = Metadata(((1, -13.0), (8, -430.0)))
    bare = fresh(TERM, pad([Structure.from_ase(frames[0])], 4.0), jax.random.key(0), metadata)
    ase.io.write(out / "known.xyz", labelled(bare, frames[:24]))
    ase.io.write(out / "test.xyz", labelled(bare, frames[24:]))
    known = read(str(out / "known.xyz"))
    equipot.save(bare, out / "bare.eqp")
    equipot.save(uncertainty.fit(bare, known, calibrate=known), out / "sure.eqp")
    delta = bare.replace(metadata=dataclasses.replace(metadata, subtracted=method_of(PAIRS)))
    ase.io.write(out / "pairs.xyz", labelled(delta, frames_of(24)))
    pairs = read(str(out / "pairs.xyz"))
    equipot.save(uncertainty.fit(delta, pairs, calibrate=pairs), out / "delta.eqp")
    return out


def run(folder, model, data, *more):
    assert cli.main(["evaluate", str(folder / model), str(folder / data), *more]) == 0


def test_predictions_hold_the_deviations_and_the_summary_tells_of_them(folder, tmp_path, capsys):
    run(folder, "sure.eqp", "test.xyz", "--out", str(tmp_path), "--json", str(tmp_path / "table.json"))
    told, table = capsys.readouterr().out, json.loads((tmp_path / "table.json").read_text())
    frames, potential = ase.io.read(tmp_path / "predictions.xyz", ":"), equipot.load(folder / "sure.eqp")
    want = ("energy", "forces", "energy_std", "forces_std", "novelty")
    found = equipot.evaluate_each(potential, ase.io.read(folder / "test.xyz", ":"), want=want)
    for atoms, out in zip(frames, found, strict=True):
        assert atoms.info["predicted_energy_std"] == pytest.approx(float(out.others["energy_std"]), rel=1e-4)
        for name in ("forces_std", "novelty"):
            np.testing.assert_allclose(atoms.arrays[f"predicted_{name}"], out.others[name], rtol=1e-4, atol=1e-7)
        assert ("predicted_stress_std" in atoms.info) == atoms.pbc.any()
    # By hand, from what the file holds.
    held = np.stack([atoms.arrays["predicted_forces_std"] for atoms in frames])
    frame, atom = np.unravel_index(np.argmax(held), held.shape)
    line = next(line for line in told.splitlines() if line.startswith("forces_std"))
    mean, largest = map(float, re.match(r"forces_std: mean (\S+) meV/Å, largest (\S+) meV/Å", line).groups())
    assert mean == pytest.approx(1e3 * held.mean(), rel=1e-2) and largest == pytest.approx(1e3 * held.max(), rel=1e-2)
    assert f"frame {frame}, atom {atom}, {frames[frame].symbols[atom]})" in line
    assert table["forces_std_mean"] == pytest.approx(held.mean(), rel=1e-5)
    factor = uncertainty.half_width(potential, "forces_std", 0.9, frames[0].numbers)
    errors = np.stack([atoms.arrays["predicted_forces"] - atoms.arrays["REF_forces"] for atoms in frames])
    share = np.mean(np.abs(errors) <= (factor * held)[:, :, None])
    assert 0.8 < share < 1 and table["forces_within_90"] == pytest.approx(share, abs=1.5 / errors.size)
    assert f"{share:.1%} of forces" in told and "of energy, " in told and "of stress" in told
    assert all(any(line.startswith(name) for line in told.splitlines()) for name in ("energy_std", "stress_std", "novelty"))


def test_a_potential_without_an_estimate_is_evaluated_as_ever(folder, tmp_path, capsys):
    run(folder, "bare.eqp", "test.xyz", "--out", str(tmp_path), "--json", str(tmp_path / "table.json"))
    assert "_std" not in capsys.readouterr().out
    text = (tmp_path / "predictions.xyz").read_text()
    assert "_std" not in text and "novelty" not in text
    assert not [name for name in json.loads((tmp_path / "table.json").read_text()) if "within" in name or "_std" in name]


def test_a_correction_to_a_method_has_deviations(folder, tmp_path, capsys):
    run(folder, "delta.eqp", "pairs.xyz", "--out", str(tmp_path))
    assert "of energy, " in capsys.readouterr().out
    potential, (atoms, *_) = equipot.load(folder / "delta.eqp"), ase.io.read(folder / "pairs.xyz", ":")
    (out,) = equipot.evaluate_each(potential, atoms, want=("energy", "forces_std"))
    first = ase.io.read(tmp_path / "predictions.xyz", 0)
    np.testing.assert_allclose(first.arrays["predicted_forces_std"], out.others["forces_std"], rtol=1e-4)
    pairs = atoms.copy()
    pairs.calc = LennardJones(**{key: value for key, value in PAIRS.items() if key != "calculator"})
    alone = equipot.evaluate(potential.correction, atoms).energy[0]
    assert abs(pairs.get_potential_energy()) > 1e-3
    assert first.info["predicted_energy"] == pytest.approx(alone + pairs.get_potential_energy(), abs=1e-4)


def test_what_is_not_calibrated_is_left_out_and_said(folder):
    potential, frames = equipot.load(folder / "sure.eqp"), read(str(folder / "test.xyz"))
    known, scale = potential.posterior.calibrations, np.array(potential.posterior.calibrations["forces_std"].scale)
    scale[8] = np.nan
    less = {**known, "forces_std": dataclasses.replace(known["forces_std"], scale=scale)}
    potential = potential.replace(posterior=potential.posterior.replace(calibrations=less))
    lone = Structure([1, 1], [[0, 0, 0], [0.8, 0, 0]], source="hydrogen")
    predictions = predict(potential, [*frames, lone], estimates=potential.deviations)
    assert [FORCES_STD in p.labels for p in predictions] == [False] * len(frames) + [True]
    assert all(ENERGY_STD in p.labels and NOVELTY in p.labels for p in predictions)
    assert [STRESS_STD in p.labels for p in predictions] == [bool(s.pbc.any()) for s in (*frames, lone)]
    lines, numbers = summary(potential, [*frames, lone], predictions)
    assert f"forces_std: left out of {len(frames)} frames with O, for which it is not calibrated" in lines
    assert any(line.startswith("forces_std: mean") and "(hydrogen, atom " in line for line in lines)
    assert "forces_within_90" not in numbers and "energy_within_90" in numbers


def test_an_element_of_which_nothing_is_known_is_infinitely_new(folder):
    hydrogen = [Structure([1, 1], [[0, 0, 0], [0.74 + 0.002 * k, 0, 0]]) for k in range(20)]
    potential = uncertainty.fit(equipot.load(folder / "bare.eqp"), hydrogen)
    (water, *_) = read(str(folder / "test.xyz"))
    predictions = predict(potential, [water], estimates=potential.deviations)
    (line,), numbers = summary(potential, [water], predictions)
    assert "largest inf (" in line and "atom 0, O); infinite for O, of which too little is known" in line
    assert set(numbers) == {"novelty_mean"} and np.isfinite(numbers["novelty_mean"])
