"""Delta-learning: what is learned beside a method or a potential is what would be learned of the difference itself."""

from __future__ import annotations

import dataclasses
import io

import ase.io
import numpy as np
import pytest
import tiny
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as Pairs

import equipot
from equipot import cli, config, eqp
from equipot.artifact import named_leaves
from equipot.data import method as methods
from equipot.data.method import runner_of
from equipot.evaluation import evaluate_each
from equipot.finetune import fine_tune
from equipot.interfaces.ase import calculate_together
from equipot.models.mace import MACE
from equipot.physics.guard import Guarded
from equipot.physics.imported import Imported
from equipot.physics.sum import Sum, add
from equipot.physics.zbl import ZBL
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure
from equipot.training import TrainConfig, checkpoint, train
from equipot.training.errors import predict

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")

SETTINGS = {"epochs": 2, "batch_size": 4, "ema": 0.9, "checkpoint": {"seconds": 0}, "devices": 1}
OWN = f"{__name__}:Own"


class Own(Pairs):
    """A calculator that equipot does not know by name; of Lennard-Jones pairs, and without a stress."""

    implemented_properties = ["energy", "forces"]


def frames(count=10, seed=0):
    """Frames with positions that survive being written, and isolated atoms."""
    made = [s.replace(positions=s.positions.round(6), cell=s.cell.round(6)) for s in tiny.structures(count, seed, (4, 4))]
    return [*made, *(Structure([z], np.zeros((1, 3)), labels={ENERGY: tiny.ENERGIES[z]}) for z in (1, 8))]


def with_calculator(structures, make, rows=(ENERGY, FORCES, STRESS)):
    """Labels of the structures plus those of a calculator."""
    out = []
    for s in structures:
        atoms = s.to_ase()
        atoms.calc = make()
        own = {ENERGY: atoms.get_potential_energy, FORCES: atoms.get_forces, STRESS: lambda a=atoms: a.get_stress(voigt=False)}
        out.append(s.replace(labels={row: value + own[row]() for row, value in s.labels.items() if row in rows}))
    return out


def write(path, structures):
    ase.io.write(path, [s.to_ase() for s in structures])
    return str(path)


def run(out, data, model=None, resume=False, training=None, **rest):
    model = {"kind": "tiny:Tiny", "cutoff": 3.5} if model is None else model
    data = {"valid": 2, "checks": {"isolated_energy": "skip"}, **data}
    whole = {"data": data, "model": model, "training": {**SETTINGS, **(training or {})}, **rest}
    built, stream = config.build(TrainConfig, whole), io.StringIO()
    path = (train if isinstance(model, list) or "kind" in model else fine_tune)(built, out, resume, stream)
    return eqp.load(path)


def close(a, b, atol):
    for one, other in zip(a, b, strict=True):
        assert one.labels.keys() == other.labels.keys()
        for row, value in one.labels.items():
            np.testing.assert_allclose(value, other.labels[row], rtol=0, atol=atol, err_msg=row.name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One network on a pair potential, and one on that and EMT less EMT; their folder."""
    folder = tmp_path_factory.mktemp("delta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOT_CACHE", str(folder / "cache"))
        plain, sums = frames(), with_calculator(frames(), EMT)
        run(folder / "plain", {"train": write(folder / "plain.xyz", plain)})
        run(folder / "delta", {"train": write(folder / "sums.xyz", sums), "subtract": {"calculator": "emt"}})
    return folder


def test_the_rest_is_learned_as_if_it_were_alone(runs):
    plain, delta = eqp.load(runs / "plain" / "best.eqp"), eqp.load(runs / "delta" / "best.eqp")
    told = delta.metadata.subtracted
    assert told.calculator == "emt" and told.versions == (("ase", ase.__version__),)
    for z, energy in plain.metadata.atomic_energies:
        assert dict(delta.metadata.atomic_energies)[z] == pytest.approx(energy, abs=1e-5)
    held = frames(4, seed=1)
    expected = with_calculator(predict(plain, held), EMT)
    found = predict(delta, held, runner=runner_of(told))
    # The last two are isolated atoms: E0 are those of the data, less those of the method.
    close(found, expected, 2e-4)


def test_every_use_adds_the_method_or_refuses(runs, tmp_path, monkeypatch, capsys):
    delta, held = eqp.load(runs / "delta" / "best.eqp"), frames(4, seed=1)[:4]
    expected = predict(delta, held, runner=runner_of(delta.metadata.subtracted))
    for out, s in zip(evaluate_each(delta, held), expected, strict=True):
        assert out.energy == pytest.approx(s.energy, abs=1e-6) and out.interaction is None
        np.testing.assert_allclose(out.forces, s.forces, atol=1e-5)
        if s.stress is not None:
            np.testing.assert_allclose(out.stress, s.stress, atol=1e-6)
    both = equipot.evaluate_ensemble([delta, delta], held[:2], ("energy", "forces"))
    np.testing.assert_allclose(both.energy, [[s.energy for s in expected[:2]]] * 2, atol=1e-6)
    images = [s.to_ase() for s in held[:2]]
    for image in images:
        image.calc = delta.calculator()
    calculate_together(images)
    assert images[1].get_potential_energy() == pytest.approx(expected[1].energy, abs=1e-6)
    np.testing.assert_allclose(images[0].get_forces(), expected[0].forces, atol=1e-5)
    np.testing.assert_allclose(images[0].get_stress(voigt=False), expected[0].stress, atol=1e-6)
    images[0].rattle(0.01, seed=0)
    moved = predict(delta, [Structure.from_ase(images[0])], runner=runner_of(delta.metadata.subtracted))
    assert images[0].get_potential_energy() == pytest.approx(moved[0].energy, abs=1e-5)
    assert "energies" not in images[0].calc.implemented_properties
    with pytest.raises(ValueError, match="energies: emt, which the potential is a correction to, gives none that could be"):
        equipot.evaluate(delta, held, ("energies",))
    for use in (lambda: predict(delta, held), lambda: equipot.hessian_of(delta, held[0])):
        with pytest.raises(
            ValueError, match=r"a correction to emt and means nothing without.* potential.calculator\(\), add it"
        ):
            use()
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    path, table = str(runs / "delta" / "best.eqp"), str(tmp_path / "errors.json")
    data = write(tmp_path / "held.xyz", with_calculator(frames(4, seed=1), EMT))
    assert cli.main(["evaluate", path, data, "--json", table]) == 0
    assert cli.main(["evaluate", path, data, "--method", OWN]) == 2
    assert f"a correction to emt, not to {OWN}" in capsys.readouterr().err
    assert cli.main(["doctor", path, "--out", str(tmp_path / "doctor")]) == 2
    assert "a correction to emt and means nothing without" in capsys.readouterr().err
    program = methods.CALCULATORS["emt"]._replace(target="no_such_package:EMT", distribution="no-such-package")
    monkeypatch.setattr(methods, "CALCULATORS", {"emt": program})
    assert cli.main(["evaluate", path, data]) == 2
    assert "the package no-such-package is missing: pip install no-such-package" in capsys.readouterr().err


def test_a_run_goes_on_bit_for_bit_without_running_the_method_again(runs, tmp_path, monkeypatch):
    """Even without a cache, and though the method would give other numbers now."""
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    data = {"train": str(runs / "sums.xyz"), "subtract": {"calculator": "emt"}}
    run(tmp_path / "run", data, training={"max_minutes": 1e-9})
    with monkeypatch.context() as patch:
        patch.setattr(methods.Runner, "run", lambda *_: pytest.fail("the method is run again"))
        run(tmp_path / "run", data, resume=True)
    newest = lambda out: checkpoint.newest(out / "checkpoints").arrays
    for name, value in newest(runs / "delta").items():
        np.testing.assert_array_equal(newest(tmp_path / "run")[name], value, name)
    with pytest.raises(ValueError, match=r"cannot be resumed, because this changed: .*subtract"):
        run(tmp_path / "run", {**data, "subtract": {"calculator": "lj"}}, resume=True)


def test_a_correction_is_tuned_as_one(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", str(runs / "cache"))
    base, sums = str(runs / "delta" / "best.eqp"), str(runs / "sums.xyz")
    tuned = run(tmp_path / "tuned", {"train": sums, "forget": {"old": sums}}, {"from": base}, training={"epochs": 1})
    plain = run(
        tmp_path / "plain",
        {"train": str(runs / "plain.xyz"), "forget": {"old": str(runs / "plain.xyz")}},
        {"from": str(runs / "plain" / "best.eqp")},
        training={"epochs": 1},
    )
    assert tuned.metadata.subtracted == eqp.load(base).metadata.subtracted
    held = frames(4, seed=1)[:4]
    close(predict(tuned.correction, held), predict(plain, held), 2e-4)
    for model, method, told in ((base, "lj", "but emt was"), (str(runs / "plain" / "best.eqp"), "emt", "but nothing was")):
        with pytest.raises(ValueError, match=told):
            run(tmp_path / "no", {"train": sums, "subtract": {"calculator": method}}, {"from": model})


def test_a_method_of_the_users_own(tmp_path, monkeypatch, capsys):
    """It is named by the config, and handed over wherever the potential is used; its missing stress is said."""
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    subtract = {"calculator": OWN, "epsilon": 0.01, "sigma": 1.0, "rc": 3.0}
    sums = write(
        tmp_path / "sums.xyz", with_calculator(frames(), lambda: Own(epsilon=0.01, sigma=1.0, rc=3.0), (ENERGY, FORCES))
    )
    delta = run(tmp_path / "run", {"train": sums, "subtract": subtract}, training={"epochs": 1})
    with pytest.raises(ValueError, match="code that a file names is not run without being asked for"):
        delta.calculator()
    with pytest.raises(ValueError, match="the calculator has epsilon 1.0"):
        delta.calculator(method=Own())
    atoms = frames(4, seed=1)[0].to_ase()
    atoms.calc = delta.calculator(method=Own(epsilon=0.01, sigma=1.0, rc=3.0))
    assert "stress" not in atoms.calc.implemented_properties
    told = equipot.evaluate(delta, atoms, ("energy", "forces"), method=OWN)
    assert atoms.get_potential_energy() == pytest.approx(float(told.energy[0]), abs=1e-6)
    path = str(tmp_path / "run" / "best.eqp")
    assert cli.main(["evaluate", path, sums]) == 2 and f"--method {OWN}" in capsys.readouterr().err
    assert cli.main(["evaluate", path, sums, "--method", OWN]) == 0


# A potential among the terms


@pytest.fixture(scope="module")
def beside(runs):
    """The network of ``runs`` frozen in a list, with another that learns labels of both; the folder of the run."""
    base = runs / "plain" / "best.eqp"
    told = predict(eqp.load(base), frames(seed=3)[:10])
    rest = frames(seed=3)[:10]
    labels = [{row: 2.0 * v + r.labels[row] for row, v in s.labels.items()} for s, r in zip(told, rest, strict=True)]
    sums = [s.replace(labels=both) for s, both in zip(rest, labels, strict=True)]
    data = {"train": write(runs / "both.xyz", sums)}
    list_of = [{"kind": "potential", "from": str(base)}, {"kind": "tiny:Tiny", "cutoff": 3.5}]
    run(runs / "both", data, {"kind": "Sum", "terms": list_of, "factors": [2.0, 1.0]})
    run(runs / "rest", {"train": write(runs / "rest.xyz", rest)}, [{"kind": "ZBL", "cutoff": 0.3}, list_of[1]])
    return runs


def test_what_a_frozen_potential_leaves_is_learned_as_if_it_were_alone(beside):
    """The whole is in one file: the potential unchanged, times its factor, and a network as if trained on the rest alone."""
    base, both = eqp.load(beside / "plain" / "best.eqp"), eqp.load(beside / "both" / "best.eqp")
    rest, held = eqp.load(beside / "rest" / "best.eqp"), frames(4, seed=1)[:4]
    assert isinstance(both.term, Sum) and both.term.frozen == (0,) and set(both.params) == {"terms_1"}
    for name, value in named_leaves(base.variables).items():
        np.testing.assert_array_equal(named_leaves(both.variables["constants"]["frozen_0"])[name], value)
    for name, value in rest.variables["constants"]["terms_1"].items():
        np.testing.assert_allclose(both.variables["constants"]["terms_1"][name], value, rtol=1e-4, atol=1e-5)
    for z, energy in rest.metadata.atomic_energies:
        whole = dict(both.metadata.atomic_energies)[z]
        assert whole == pytest.approx(2 * dict(base.metadata.atomic_energies)[z] + energy, abs=1e-4)
    expected = [
        s.replace(labels={row: 2.0 * v + r.labels[row] for row, v in s.labels.items()})
        for s, r in zip(predict(base, held), predict(rest, held), strict=True)
    ]
    close(predict(both, held), expected, 5e-4)
    assert "(SHA-256" in dict(both.metadata.extra)["holds"]


def test_a_run_beside_a_potential_goes_on_bit_for_bit(beside, tmp_path, monkeypatch):
    """Its config, as it was written, names the potential, whose predictions are not made again."""
    import equipot.training.imported as module

    written = config.load(beside / "both" / "config.yaml", TrainConfig)
    assert written.model.terms[0].from_ == str(beside / "plain" / "best.eqp") and written.model.terms[1].elements == (1, 8)
    cut = dataclasses.replace(written, training=dataclasses.replace(written.training, max_minutes=1e-9))
    train(cut, tmp_path / "run", progress=None)
    monkeypatch.setattr(module, "predict", lambda *_, **__: pytest.fail("the potential is evaluated again"))
    train(written, tmp_path / "run", resume=True, progress=None)
    newest = lambda out: checkpoint.newest(out / "checkpoints").arrays
    for name, value in newest(beside / "both").items():
        np.testing.assert_array_equal(newest(tmp_path / "run")[name], value, name)


def test_a_potential_is_trained_from_its_variables(beside, tmp_path):
    base = eqp.load(beside / "plain" / "best.eqp")
    model = [{"kind": "potential", "from": str(beside / "plain" / "best.eqp"), "frozen": False}, {"kind": "ZBL", "cutoff": 0.3}]
    before = run(tmp_path / "still", {"train": str(beside / "rest.xyz")}, model, training={"max_minutes": 1e-9})
    assert set(before.params) == {"terms_0"} and not before.term.frozen
    for name, value in named_leaves(base.params).items():
        assert float(np.abs(named_leaves(before.params["terms_0"])[name] - value).max()) < 0.2
    np.testing.assert_array_equal(before.variables["constants"]["terms_0"]["scale"], base.variables["constants"]["scale"])


def test_a_wall_stands_around_all_of_it(beside, tmp_path):
    """The cutoff that is left to the data is that of the new network alone; the potential keeps its own, and its variables."""
    base = eqp.load(beside / "plain" / "best.eqp")
    model = [{"kind": "potential", "from": str(beside / "plain" / "best.eqp")}, {"kind": "tiny:Tiny"}]
    best = run(tmp_path / "run", {"train": str(beside / "both.xyz")}, model, training={"epochs": 1}, guard=True)
    assert isinstance(best.term, Guarded) and best.term.base.terms[0].cutoff == 3.5 and best.cutoff == best.term.base.cutoff
    kept = named_leaves(best.variables["constants"]["frozen_0"])
    assert kept.keys() == named_leaves(base.variables).keys()
    for name, value in named_leaves(base.variables).items():
        np.testing.assert_array_equal(kept[name], value)
    written = config.load(tmp_path / "run" / "config.yaml", TrainConfig)
    assert isinstance(written.model.base.terms[0], Imported) and written.model.base.terms[1].cutoff


def test_networks_of_other_elements_are_added():
    """A frozen potential of many elements leaves the new network those of the data."""
    many = MACE(4.0, elements=(1, 6, 8), channels=4)
    term = Sum((many, MACE(3.0, channels=4), ZBL()), frozen=(0,))
    assert term.elements == () and term.cutoff is None and term.averaging_cutoff == 3.0
    filled = term.clone(elements=(1, 8))
    assert filled.terms[0].elements == (1, 6, 8) and filled.terms[1].elements == (1, 8) and filled.cutoff == 4.0
    assert config.build(type(term).__mro__[1], config.dump(filled)) == filled


def test_what_a_potential_among_terms_refuses(beside, tmp_path):
    base = eqp.load(beside / "plain" / "best.eqp")
    held = {"kind": "potential", "from": str(beside / "plain" / "best.eqp")}
    named = base.replace(metadata=dataclasses.replace(base.metadata, level_of_theory="PBE-D3(BJ)"))
    eqp.save(named, tmp_path / "d3.eqp")
    d3 = {"kind": "potential", "from": str(tmp_path / "d3.eqp")}
    network, other = {"kind": "tiny:Tiny", "cutoff": 3.5}, {"kind": "potential", "from": str(beside / "delta" / "best.eqp")}
    electrostatic = {"kind": "Electrostatics", "base": held, "charges": "PerSpecies"}
    for model, message in (
        (held, "alone is trained by fine-tuning, model: {from: "),
        (electrostatic, "can be frozen only in a list of terms"),
        ([other, network], "is a correction to emt itself"),
        ([d3, network, {"kind": "D3", "functional": "pbe", "cutoff": 5.0}], "D3 is dispersion already"),
        ([{**held, "cutoff": 3.0}, network], "cutoff 3 Å: .* has its own; leave it out"),
        (
            [{**held, "from": "sevennet-O"}, network],
            "sevennet-O: neither a file nor the name of a published potential; did you",
        ),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(tmp_path / "no", {"train": str(beside / "rest.xyz")}, model)
    carbon = [s.replace(numbers=np.full(len(s), 6)) for s in frames()[:4]]
    with pytest.raises(ValueError, match=r"best.eqp: .*the potential does not know C"):
        run(tmp_path / "no", {"train": write(tmp_path / "c.xyz", carbon)}, [held, network])


def test_a_sum_keeps_the_method_of_one(runs):
    plain, delta = eqp.load(runs / "plain" / "best.eqp"), eqp.load(runs / "delta" / "best.eqp")
    assert add([plain, delta]).metadata.subtracted == delta.metadata.subtracted
    for pair, factors in (([delta, delta], None), ([plain, delta], (1.0, 2.0))):
        with pytest.raises(ValueError, match="a correction to emt can be added with the factor 1 only"):
            add(pair, factors)
