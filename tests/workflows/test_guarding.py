"""``equipot guard`` writes a potential with a wall, says what it did, and refuses what it cannot do."""

from __future__ import annotations

import ase.io
import jax
import numpy as np
import pytest
from ase.build import molecule

import equipot
from equipot import cli
from equipot.data.batch import pad
from equipot.metadata import Head, Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.guard import MARGIN, Guarded, Wall, guard, lowered, outer_radii
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.guarding import pairs_inside, radii_text

WATER = Structure.from_ase(molecule("H2O"))


@pytest.fixture
def folder(tmp_path, monkeypatch, double_precision):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    return tmp_path


def network(heads=()) -> Potential:
    term = MACE(4.0, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)), heads=heads)
    energies = ((1, -13.0), (8, -430.0))
    graph = pad([WATER.replace(head=0 if heads else None)], 4.0)
    return fresh(term, graph, jax.random.key(0), Metadata(energies, heads=tuple(Head(name, energies) for name in heads)))


def test_a_wall_by_command(folder, capsys):
    equipot.save(network(), "base.eqp")
    assert cli.main(["guard", "base.eqp", "--share", "0.6"]) == 0
    said = capsys.readouterr().out
    assert "inner radii (Å): H-H 0.37, H-O 0.58, O-O 0.79" in said and "sound: 0 of" in said.replace("attracting 0 of", "0 of")
    assert "largest change, in double precision: 0.0e+00 eV/atom, 0.0e+00 eV/Å" in said and "0 pairs inside" in said
    base, made = equipot.load("base.eqp"), equipot.load("base-guarded.eqp")
    assert made.term == Guarded(base.term, Wall(0.6)) and made.metadata == base.metadata and made.dtype == base.dtype
    assert equipot.evaluate(made, WATER).energy == pytest.approx(equipot.evaluate(base, WATER).energy, abs=1e-12)
    assert cli.main(["guard", "base-guarded.eqp"]) == 2
    assert "has a wall already" in capsys.readouterr().err
    assert cli.main(["guard", "base.eqp", "-o", "base.eqp"]) == 2
    assert cli.main(["guard", "base.eqp", "--share", "2"]) == 2
    assert "share 2.0 of a wall must be" in capsys.readouterr().err


def test_frames_keep_their_distances(folder, capsys):
    ase.io.write("close.xyz", [molecule("H2O"), molecule("H2")])
    equipot.save(network(), "base.eqp")
    assert cli.main(["guard", "base.eqp", "-o", "safe.eqp", "--share", "1", "--structures", "close.xyz"]) == 0
    assert "0.0e+00 eV/Å\n    on 2 frames of close.xyz, with 0 pairs inside" in capsys.readouterr().out
    found = outer_radii(equipot.load("safe.eqp"))
    assert found[1, 8] == pytest.approx(MARGIN * 0.9689, abs=1e-3) and found[8, 8] == pytest.approx(1.15 * 1.32)
    assert cli.main(["guard", "base.eqp", "-o", "high.eqp", "--share", "1"]) == 0
    assert "0 pairs inside" not in capsys.readouterr().out


def test_all_heads_get_the_wall(folder, capsys):
    equipot.save(network(("low", "high")), "base.eqp")
    assert cli.main(["guard", "base.eqp"]) == 0
    assert capsys.readouterr().out.count("of 256 pairs of atoms") <= 2
    made = equipot.load("base-guarded.eqp@high")
    assert isinstance(made.term, Guarded) and made.heads == ()


def test_radii_of_many_elements_are_summands_and_exceptions():
    numbers = (1, 6, 7, 8, 9, 14, 15)
    closest = np.full((119, 119), np.inf)
    closest[6, 8] = closest[8, 6] = 0.5
    term = LennardJones(cutoff=5.0, sigma=1.0)
    model = lowered(guard(Potential(term, {}, Metadata(tuple((z, 0.0) for z in numbers))), Wall()), closest)
    text = radii_text(model)
    assert text.startswith("inner radii (Å) of 28 pairs, the sums of H 0.155, C 0.380, ")
    assert text.endswith("; but for 1 pairs: C-O 0.41")
    chain = Structure([6, 8, 6], [[0, 0, 0], [0, 0, 0.4], [0, 0, 0.9]])
    assert pairs_inside(model, [chain, WATER]) == 1
