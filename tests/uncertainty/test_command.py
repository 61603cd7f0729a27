"""The command ``equipot uncertainty``: files, tables, and errors in one line."""

from __future__ import annotations

import json

import ase.io
import jax
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import equipot
from equipot import cli
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.structure import Structure
from equipot.uncertainty.prototypes import half_bond, prototypes

TERM = MACE(4.0, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A potential, and frames of water with labels that differ from its predictions at random."""
    out, rng = tmp_path_factory.mktemp("uncertainty"), np.random.default_rng(0)
    frames = [molecule("H2O") for _ in range(60)]
    for atoms in frames:
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
    metadata = Metadata(((1, -13.0), (8, -430.0)))
    potential = fresh(TERM, pad([Structure.from_ase(frames[0])], 4.0), jax.random.key(0), metadata)
    equipot.save(potential, out / "model.eqp")
    ase.io.write(out / "known.xyz", frames[:20])
    for atoms, found in zip(frames, equipot.evaluate_each(potential, frames, want=("energy", "forces")), strict=True):
        forces = found.forces + 0.1 * rng.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(found.energy) + 0.05 * rng.normal(), forces=forces)
    ase.io.write(out / "calibrate.xyz", frames[20:40])
    ase.io.write(out / "test.xyz", frames[40:])
    return out


def run(folder, *arguments):
    return cli.main(["uncertainty", *(str(folder / x) if x.endswith((".xyz", ".eqp")) else x for x in arguments)])


def test_a_potential_gets_its_estimate_and_a_report(folder, capsys):
    assert run(folder, "model.eqp", "--data", "known.xyz", "-o", "new.eqp", "--set", "method.samples=4") == 0
    assert "no deviations are calibrated" in capsys.readouterr().out
    # From the sums in the file, with another method.
    more = ("--calibrate", "calibrate.xyz", "--test", "test.xyz", "--out", str(folder / "report"))
    assert run(folder, "new.eqp", *more, "-o", "sure.eqp", "--set", "method.samples=6") == 0
    told = capsys.readouterr().out
    assert "rests on 20 frames of known.xyz" in told and "H 90% within" in told and "feature norm" in told
    table = json.loads((folder / "report" / "uncertainty.json").read_text())
    assert table["LastLayer"]["forces_std"]["rmse"] == pytest.approx(0.1, rel=0.3)
    assert (folder / "report" / "uncertainty.png").stat().st_size > 10_000
    assert "conformal prediction" in (folder / "report" / "uncertainty.html").read_text()
    potential = equipot.load(folder / "sure.eqp")
    assert potential.posterior.method.samples == 6
    assert potential.posterior.statistics == equipot.load(folder / "new.eqp").posterior.statistics
    (out,) = equipot.evaluate_each(potential, ase.io.read(folder / "test.xyz"), want=("energy_std", "forces_std"))
    assert out.others["energy_std"] == pytest.approx(0.05, rel=0.5)
    assert run(folder, "sure.eqp", "--test", "test.xyz", "-o", "same.eqp") == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("model.eqp",), "give structures that the model knows"),
        (("model.eqp", "--data", "known.xyz", "--prototypes"), "give one of them"),
        (("model.eqp", "--calibrate", "calibrate.xyz"), "no estimate of its uncertainty yet"),
        (("model.eqp", "--data", "known.xyz", "--test", "test.xyz", "-o", "x.eqp"), "give labelled frames that calibrate"),
        (
            ("model.eqp", "--data", "known.xyz", "--calibrate", "known.xyz", "-o", "x.eqp"),
            "has no energy, forces or stress",
        ),
        (("model.eqp", "--data", "known.xyz", "-o", "name"), "ends in .eqp"),
        (("model.eqp", "--data", "known.xyz", "--set", "method.sampels=3"), "samples"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_errors_are_one_line(folder, arguments, message, capsys):
    assert run(folder, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_prototypes_hold_every_element_and_pairs_with_oxygen():
    made = prototypes((8, 14, 29))
    assert len(made) > 50 and {z for s in made for z in s.numbers.tolist()} == {8, 14, 29}
    pairs = {tuple(sorted(set(s.numbers.tolist()))) for s in made}
    assert {(8, 14), (8, 29), (14, 29), (14,)} <= pairs
    assert [s.positions.tolist() for s in made] == [s.positions.tolist() for s in prototypes((8, 14, 29))]


@pytest.mark.parametrize(
    "z, neighbours, bond, within",
    [(14, 4, 2.35, 0.01), (29, 12, 2.55, 0.01), (26, 12, 2.58, 0.03), (14, 12, 2.7, 0.1), (8, 2, 1.32, 0.2), (1, 1, 0.74, 0.5)],
)
def test_bonds_of_prototypes_are_about_those_of_crystals(z, neighbours, bond, within):
    """Silicon, copper, iron in its crystal and in fcc, silicon in fcc, the molecules of oxygen and hydrogen (Å)."""
    assert 2 * half_bond(z, neighbours) == pytest.approx(bond, abs=within)
