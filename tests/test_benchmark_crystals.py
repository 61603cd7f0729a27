"""The benchmark of crystals: its structures and references, and its measurements by potentials with closed forms."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import spglib
from closed_forms import morse, silicon

import equipot
from equipot.units import GPa
from equipot.workflows.relax import RelaxConfig, relax

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.__main__ import main  # noqa: E402
from benchmarks.crystals import measurements  # noqa: E402
from benchmarks.crystals.measurements import barrier, constant_of, elastic, phonon, polymorphs, vacancies  # noqa: E402
from benchmarks.crystals.references import PUBLISHED, UNITS, references  # noqa: E402
from benchmarks.crystals.structures import CUBIC, families, primitive, supercell, vacancy  # noqa: E402
from benchmarks.crystals.tables import crystals, mean  # noqa: E402

DEPTH, WIDTH, LENGTH = 0.3429, 1.3588, 2.6
"""Of Morse bonds between nearest neighbours alone, so that every bond of a perfect crystal has its best length."""


def copper():
    return morse(depth=DEPTH, width=WIDTH, distance=LENGTH, cutoff=3.6, onset=0.9)


def test_every_number_has_a_unit_a_source_and_one_place():
    known = [(subject, quantity, r) for subject, found in PUBLISHED for quantity, rs in found.items() for r in rs]
    assert all(quantity in UNITS and r.source and r.method in ("DFT", "experiment") for _, quantity, r in known)
    places = [(subject, quantity, r.method) for subject, quantity, r in known]
    assert len(set(places)) == len(places)
    polymorphs = {f"{name} {kind}" for name, family in families().items() for kind in family.cells}
    assert {subject for subject, _, _ in known} <= set(CUBIC) | polymorphs


@pytest.mark.parametrize("name", CUBIC)
def test_published_numbers_fit_each_other(name):
    """Slips of the pen show: DFT and experiment are near each other, crystals are stable, bulk moduli fit the constants."""
    value = lambda quantity, method: next((r.value for r in references(name, quantity) if r.method == method), None)
    for quantity in UNITS:
        both = value(quantity, "DFT"), value(quantity, "experiment")
        if None not in both:
            assert both[0] == pytest.approx(both[1], rel=0.025 if quantity == "a" else 0.2)
    for method in ("DFT", "experiment"):
        c11, c12, c44 = (value(quantity, method) for quantity in ("C11", "C12", "C44"))
        if c11 is not None:
            assert c11 > c12 > 0 < c44 and value("B", "DFT") == pytest.approx((c11 + 2 * c12) / 3, rel=0.15)
    assert value("a", "DFT") and value("B", "DFT") and value("C44", "experiment")


GROUPS = {
    "Si": {"diamond": 227, "lonsdaleite": 194, "bc8": 206, "beta-tin": 141, "simple hexagonal": 191, "hcp": 194, "bcc": 229,
           "fcc": 225},
    "C": {"diamond": 227, "lonsdaleite": 194, "graphite": 194},
    "TiO2": {"rutile": 136, "anatase": 141, "brookite": 61},
}  # fmt: skip
NEIGHBOURS = {
    "Si": {"diamond": 4, "lonsdaleite": 4, "bc8": 4, "beta-tin": 6, "simple hexagonal": 8, "hcp": 12, "bcc": 8, "fcc": 12},
    "C": {"diamond": 4, "lonsdaleite": 4, "graphite": 3}, "TiO2": {"rutile": 6, "anatase": 6, "brookite": 6},
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_polymorphs_have_their_space_groups_and_coordination(name):
    from ase.neighborlist import neighbor_list

    family = families()[name]
    assert set(family.cells) == set(GROUPS[name]) and family.reference in family.cells
    for kind, atoms in family.cells.items():
        cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=1e-3).number == GROUPS[name][kind], kind
        assert len(spglib.find_primitive(cell, symprec=1e-3)[2]) == len(atoms), kind
        lengths = np.sort(neighbor_list("d", atoms, 4.0)[neighbor_list("i", atoms, 4.0) == 0])
        count = NEIGHBOURS[name][kind]
        assert lengths[count - 1] < 1.12 * lengths[0] < lengths[count], kind


@pytest.mark.parametrize("name", ["Cu", "Si"])
def test_a_vacancy_moves_by_one_bond(name):
    perfect = supercell(name, 4.0, 2)
    hole = vacancy(perfect)
    assert len(hole.before) == len(perfect) - 1
    bond = 4.0 * (np.sqrt(0.5) if name == "Cu" else np.sqrt(3) / 4)
    from ase.geometry import find_mic

    step, length = find_mic(hole.after.positions - hole.before.positions, perfect.cell, perfect.pbc)
    assert length.max() == pytest.approx(bond) and np.count_nonzero(length) == 1
    target = (hole.before.positions + step)[np.argmax(length)] - perfect.positions[0]
    assert find_mic(target[None], perfect.cell, perfect.pbc)[1][0] == pytest.approx(0, abs=1e-9)


def test_stillinger_weber_silicon_has_its_published_constants(double_precision):
    """Cowley, Phys. Rev. Lett. 60, 2379 (1988): 161.6, 81.6, 60.3 GPa, 117.2 with clamped atoms, for a depth of 2.315 eV."""
    found = elastic(silicon(), "Si")
    values = found.quantities["Si"]
    assert not found.failures
    assert values["a"] == pytest.approx(5.431, abs=1e-3)
    published = {"C11": 161.6, "C12": 81.6, "C44": 60.3, "C44 clamped": 117.2, "B": (161.6 + 2 * 81.6) / 3}
    assert {name: values[name] for name in published} == pytest.approx(
        {name: value * 2.1683 / 2.315 for name, value in published.items()}, rel=2e-3
    )
    rows = {row["quantity"]: row for row in found.rows()}
    assert rows["C44"]["unit"] == "GPa" and [r["value"] for r in rows["C44"]["published"]] == [72.2, 79.6]
    assert [r["method"] for r in rows["a"]["published"]] == ["DFT", "experiment"]


def test_bonds_between_neighbours_alone_have_closed_forms(double_precision):
    """E_f = 6 D where every bond keeps its best length; omega^2 = 8 k / m at the zone boundary, with k = 2 D alpha^2."""
    import ase.data

    potential = copper()
    found = vacancies(potential, "Cu", (2,))
    assert not found.failures
    assert found.quantities["Cu"]["vacancy formation"] == pytest.approx(6 * DEPTH, abs=1e-5)
    assert found.details["sizes"][0]["atoms"] == 31
    spring = 2 * DEPTH * WIDTH**2
    waves = phonon(potential, "Cu")
    # eV / (Å^2 amu) in (2 pi THz)^2.
    expected = np.sqrt(8 * spring / ase.data.atomic_masses[29] * 9648.53321) / (2 * np.pi)
    assert not waves.failures and waves.quantities["Cu"] == {"highest": pytest.approx(expected, rel=1e-4)}
    tensor = elastic(potential, "Cu").quantities["Cu"]
    # C11 = 2 C12 = 2 C44 = k sqrt(2) / r for springs between nearest neighbours of an fcc crystal.
    expected = np.sqrt(2) * spring / LENGTH / GPa
    assert tensor["C11"] == pytest.approx(expected, rel=1e-3) and tensor["C44"] == pytest.approx(expected / 2, rel=1e-3)
    assert tensor["a"] == pytest.approx(LENGTH * np.sqrt(2), rel=1e-5) and "C44 clamped" not in tensor


def test_the_barrier_is_the_energy_halfway(double_precision):
    """By symmetry the saddle point has the mover in the middle of its way: all others relaxed about it give the energy."""
    potential = morse(cutoff=6.0, onset=0.8)
    found = barrier(potential, "Cu", 2)
    assert not found.failures
    (relaxed,) = relax(potential, [primitive("Cu")], measurements.CELL)
    hole = vacancy(supercell("Cu", constant_of(relaxed, "Cu"), 2))
    from ase.geometry import find_mic

    step, length = find_mic(hole.after.positions - hole.before.positions, hole.before.cell, hole.before.pbc)
    fixed = np.repeat((length > 0)[:, None], 3, axis=1)
    start, middle = hole.before, hole.before.replace(positions=hole.before.positions + step / 2, fixed=fixed)
    low, high = (relax(potential, [s], RelaxConfig(fmax=1e-4, symmetry=False))[0] for s in (start, middle))
    assert found.quantities["Cu"]["vacancy migration"] == pytest.approx(high.energy - low.energy, abs=1e-4)
    assert found.details["saddle"]["curvature_eV_per_A2"] < 0 and found.details["atoms"] == 31


def test_polymorphs_of_stillinger_weber_silicon(double_precision):
    """Diamond and lonsdaleite have the same bonds and angles, and no others are as low."""
    found = polymorphs(silicon(), "Si")
    energies = {name: values["energy"] for name, values in found.quantities.items()}
    assert energies["Si diamond"] == 0 and energies["Si lonsdaleite"] == pytest.approx(0, abs=0.01)
    assert all(energies[f"Si {kind}"] > 50 for kind in ("bc8", "beta-tin", "bcc", "fcc", "hcp"))
    assert set(found.details["order"][:2]) == {"Si diamond", "Si lonsdaleite"}
    assert found.quantities["Si diamond"]["volume"] == pytest.approx(5.431**3 / 8, rel=1e-3)


def test_from_command_to_table_and_what_is_there_is_kept(tmp_path, monkeypatch, capsys, double_precision):
    monkeypatch.setattr("equipot.cli.runtime.prepare", lambda dtype: None)
    monkeypatch.setattr("equipot.keep_freed_memory", lambda: None)
    model, out = tmp_path / "bonds.eqp", tmp_path / "crystals.json"
    equipot.save(copper(), model)
    command = ["benchmarks", "crystals", "--model", str(model), "--repeats", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--solids", "Cu", "--only", "vacancies"])
    main()
    first = json.loads(out.read_text())
    assert "bonds.eqp" in first["command"] and str(tmp_path) not in out.read_text()
    (line,) = first["results"]
    assert (line["model"], line["part"], line["solid"], line["failures"]) == ("bonds", "vacancies", "Cu", [])
    monkeypatch.setattr(measurements, "vacancies", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(sys, "argv", [*command, "--solids", "Cu", "--only", "vacancies", "phonons", "--add"])
    main()
    second = json.loads(out.read_text())["results"]
    assert second[0] == line and [x["part"] for x in second] == ["vacancies", "phonons"]
    shown = capsys.readouterr().out
    assert "bonds | DFT" in shown and "By size of the cell: bonds, Cu 31 atoms 2.057 eV" in shown and "Ehrhart" in shown
    # To a file of another machine nothing is added.
    out.write_text(out.read_text().replace('"cores"', '"other cores"'))
    with pytest.raises(ValueError, match="another machine"):
        main()


def test_means_and_failures_in_tables():
    row = lambda quantity, unit, value, published: {
        "subject": "Si", "quantity": quantity, "unit": unit, "value": value,
        "published": [{"method": "DFT", "value": published, "source": "here"}],
    }  # fmt: skip
    lines = [
        {"model": "m", "part": "phonons", "solid": "Si", "rows": [row("optical at Gamma", "THz", 9.0, 10.0)], "details": {},
         "failures": []},
        {"model": "m", "part": "polymorphs", "solid": "Si", "rows": [row("energy", "meV", None, 5.0)],
         "details": {"order": ["Si diamond"]}, "failures": ["Si bcc: did not relax"]},
    ]  # fmt: skip
    shown = crystals(lines)
    assert "- m, polymorphs of Si: Si bcc: did not relax" in shown
    means = next(x for x in shown.splitlines() if x.startswith("| m ")).split("|")
    assert [cell.strip() for cell in means[6:8]] == ["0.81", "1"]
    assert mean([0.5, 2.0]) == pytest.approx(1) and mean([]) is None and mean([1.0, -1.0]) is None
