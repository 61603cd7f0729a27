"""Failures are told, never hidden: in the exit code, on standard error, in the results and on the page of each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write
from commands import typed
from pair_crystals import crystal, make_argon

import equipot


def nearly_bcc():
    """A body-centred crystal whose cell is a little longer than a cube: it is one within 0.01 Å, and falls to another."""
    atoms = bulk("Ar", "bcc", a=2.8, cubic=True)
    atoms.set_cell(atoms.cell[:] * [[1], [1], [1.002]], scale_atoms=True)
    return atoms


def straight_three():
    """Three atoms in a line, at rest in it; they fold up."""
    return Atoms("Ar3", positions=[[0, 0, 0], [2.4663, 0, 0], [4.9326, 0, 0]])


def past_a_well():
    """An atom far from another one, on either side: all paths between lead through the well of the pair."""
    ends = [Atoms("Ar2", positions=[[0, 0, 0], [x, 0.4, 0]], constraint=FixAtoms([0])) for x in (-4.9, 4.9)]
    return ends


def moving(frames=14):
    """A few frames of atoms that move at random."""
    rng, out = np.random.default_rng(0), []
    for k in range(frames):
        atoms = bulk("Ar", "fcc", a=3.5, cubic=True)
        atoms.positions += 0.05 * rng.normal(size=(4, 3))
        atoms.set_momenta(rng.normal(size=(4, 3)))
        atoms.info["time_fs"] = 2.0 * k
        out.append(atoms)
    return out


class Row(NamedTuple):
    """A command that fails, and what it says."""

    command: str
    structure: Callable[[], object]
    settings: tuple[str, ...]
    says: str
    depth: float = 0.05
    """Depth of the well of a pair, eV."""


ROWS = {
    "no convergence": Row("relax", crystal, ("max_steps=3",), "3 evaluations were not enough"),
    "imaginary modes of a molecule": Row("vibrations", straight_three, ("fmax=0.001",), "imaginary modes"),
    "imaginary modes of a crystal": Row(
        "phonons", lambda: bulk("Ar", "bcc", a=2.8), ("supercell=[2, 2, 2]", "relax=isotropic", "mesh_length=8"),
        "imaginary modes, the crystal is not at a minimum",
    ),
    "a broken symmetry": Row("relax", nearly_bcc, ("cell=full",), "its symmetry broke, Im-3m (229) to"),
    "a path through a hole": Row(
        "neb", past_a_well, ("ends=null", "saddle=null", "rate=false", "images=7", "band.max_steps=60"),
        "below the first: a hole, or a lower minimum", 1.5,
    ),
    "a trajectory too short": Row("transport", moving, ("radial=null",), "too few"),
    "a cell that collapses": Row(
        "relax", lambda: bulk("Ar", "fcc", a=5.5, cubic=True), ("cell=isotropic",), "its cell collapsed"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
def test_it_is_told(what, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    row = ROWS[what]
    write(tmp_path / "given.xyz", row.structure())
    equipot.save(make_argon(epsilon=row.depth), tmp_path / "argon.eqp")
    model = [] if row.command == "transport" else [tmp_path / "argon.eqp"]
    found = typed(capsys, row.command, *model, tmp_path / "given.xyz", out=tmp_path / "out", settings=row.settings)
    assert found.code == 1, found.err
    told = [failure for failure in found.told["failures"] if row.says in failure]
    assert told, found.told["failures"]
    assert all(failure in found.alarms for failure in told), found.alarms
    assert any(("class", "alarm") in attributes.items() for _, attributes in found.page.tags)
    assert all(f"equipot: {failure}" in found.err for failure in told)
