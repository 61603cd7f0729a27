"""``equipot bulk`` from the command line: its files, its page, interruption and resumption."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from commands import assert_alike, interrupt_after, typed, without_unit
from pair_crystals import make_argon

import equipot

SETTINGS = ("equation_of_state.points=5", "tension={span: 0.1, steps: 2}")
STAGES = ["structure 0", *(f"volume {k}" for k in range(5)), "derivatives", *(f"strained {k}" for k in range(12)),
          *(f"strain step {k} 0" for k in range(3))]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A potential, and crystals of it."""
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    equipot.save(make_argon(), tmp_path / "argon.eqp")
    ase.io.write(tmp_path / "fcc.xyz", bulk("Ar", "fcc", a=3.5))
    ase.io.write(tmp_path / "two.xyz", [bulk("Ar", "bcc", a=2.8), bulk("Ar", "fcc", a=3.5)])
    return tmp_path


def test_all_properties_of_a_crystal_and_its_resumption(folder, capsys, monkeypatch):
    args = (folder / "argon.eqp", folder / "fcc.xyz")
    whole = typed(capsys, "bulk", *args, out=folder / "whole", settings=SETTINGS)
    assert whole.code == 0, whole.err
    told = whole.told
    assert told["failures"] == [] and not without_unit(told)
    for line in ("equation of state", "elastic tensor", "stress-strain curve", "bulk modulus", "C11", "strength along xx"):
        assert line in whole.out
    # A pair potential: C12 = C44, and the bulk modulus of the equation of state is that of the tensor.
    c = np.array(told["elasticity"]["tensor_GPa"])
    assert c[0, 1] == pytest.approx(c[3, 3], rel=1e-3)
    assert told["equation_of_state"]["bulk_modulus_GPa"] == pytest.approx((c[0, 0] + 2 * c[0, 1]) / 3, rel=0.03)
    assert told["structure"]["space_group"] == "Fm-3m (225)" and len(told["tension"]["strains"]) == 3
    labels = [(plot["x_label"], plot["y_label"]) for plot in whole.page.plots]
    assert labels == [("volume (Å³)", "energy (eV)"), ("strain xx", "stress (GPa)")]
    (viewer,) = whole.page.viewers
    cells = whole.page.text["td"]
    assert {"bulk modulus", "bulk modulus hill", "GPa", "Å^3/atom"} <= set(cells)
    assert "-0.00" not in cells and not any(cell.endswith(("_GPa", "_A", "_deg", "_eV", "_atom")) for cell in cells)
    assert len(viewer["structures"]) == 3 and "stress (GPa)" in viewer["properties"]
    assert (folder / "whole" / "bulk.png").read_bytes().startswith(b"\x89PNG")
    kept = []
    # In the midst of the volumes, of the strained cells, and of the curve.
    for pieces in (3, 6, 10, None):
        again = ("--resume",) if kept else ()
        with monkeypatch.context() as patched:
            now = interrupt_after(patched, pieces or 99)
            found = typed(capsys, "bulk", *args, *again, out=folder / "cut", settings=SETTINGS)
        kept += now
        assert found.code == (130 if pieces else 0)
    assert sorted(kept) == sorted(STAGES)
    assert_alike(found.told, whole.told, rel=1e-5, atol=1e-5)


def test_polymorphs_are_ranked_and_the_rest_is_left_out(folder, capsys):
    settings = ("equation_of_state=null", "elasticity=null")
    found = typed(capsys, "bulk", folder / "argon.eqp", folder / "two.xyz", out=folder / "out", settings=settings)
    assert found.code == 0, found.err
    first, second = found.told["ranking"]
    assert first["above_first_meV_per_atom"] == 0 < second["above_first_meV_per_atom"]
    assert first["deviation_meV_per_atom"] is None and not without_unit(found.told)
    assert found.told["structure"]["space_group"] == "Fm-3m (225)" and "meV/atom" in found.out
    assert "equation_of_state" not in found.told and not (folder / "out" / "bulk.png").exists()


def test_an_unstable_crystal_and_one_that_does_not_relax_are_told(folder, capsys):
    ase.io.write(folder / "bcc.xyz", bulk("Ar", "bcc", a=2.8))
    settings = ("equation_of_state=null", "elasticity.check=0")
    found = typed(capsys, "bulk", folder / "argon.eqp", folder / "bcc.xyz", out=folder / "bcc", settings=settings)
    assert found.code == 1 and "not stable (Born)" in found.err and found.told["elasticity"]["is_stable"] is False
    assert any("not stable (Born)" in text for text in found.told["failures"]) and "not stable (Born)" in found.alarms
    few = typed(capsys, "bulk", folder / "argon.eqp", folder / "fcc.xyz", out=folder / "few", settings=("relax.max_steps=2",))
    assert few.code == 1 and "2 evaluations were not enough" in few.told["failures"][0] and "elasticity" not in few.told
    ase.io.write(folder / "slab.xyz", bulk("Ar", "fcc", a=3.5))
    atoms = ase.io.read(folder / "slab.xyz")
    atoms.pbc = (True, True, False)
    ase.io.write(folder / "slab.xyz", atoms)
    slab = typed(capsys, "bulk", folder / "argon.eqp", folder / "slab.xyz", out=folder / "slab")
    assert slab.code == 2 and "is for crystals" in slab.err
