"""The command `equipot constitutive` on a crystal whose law is found in no time: files, failures, resumption."""

import dataclasses
import importlib.util
import io
import json

import numpy as np
import pytest
from ase.build import bulk
from pair_crystals import make_argon

from equipot import config
from equipot.console import Console
from equipot.structure import Structure
from equipot.workflows.constitutive import (
    ConstitutiveConfig,
    Convex,
    Density,
    GroupAverage,
    Law,
    Sampling,
    StrainRange,
    Training,
    Unconstrained,
    command,
)
from equipot.workflows.task import Task

pytestmark = pytest.mark.usefixtures("double_precision")
REST = 3.413009543495057
"""Lattice constant (Å) without stress."""
QUICK = ConstitutiveConfig(
    law=Density(GroupAverage(3), Unconstrained((8,))),
    sampling=Sampling(StrainRange(0.04, 0.04), count=50, tests=20, points=5, atoms="affine"),
    training=Training(adam_steps=0, lbfgs_steps=100),
    relax=None,
)


@pytest.fixture
def page(monkeypatch):
    """What the page would hold, where no module of pages is there yet."""
    said = []
    if importlib.util.find_spec("equipot.pages") is None:
        monkeypatch.setattr(command, "write_report", lambda file, *rest: said.append(file) or file.write_text("<html>"))


def task(out, size, resume=False):
    structures = [Structure.from_ase(bulk("Ar", "fcc", a=size))]
    return Task("argon.eqp", make_argon(), structures, out, resume, Console(io.StringIO()))


def test_a_law_is_found_and_told(tmp_path, page, monkeypatch):
    trained, fit = [], command.fit
    keep = lambda *arguments, **named: trained.append(fit(*arguments, **named)) or trained[-1]
    monkeypatch.setattr(command, "fit", keep)
    outcome = command.run(task(tmp_path, REST), QUICK)
    assert not outcome.failures and "neo-Hooke" in outcome.summary
    told = json.loads((tmp_path / "constitutive.json").read_text())
    inside = told["errors"]["inside"]
    assert inside["law"]["stress_rmse_GPa"] < 0.2 * inside["Saint Venant-Kirchhoff"]["stress_rmse_GPa"]
    assert told["errors"]["outside"]["law"]["stress_rmse_GPa"] > inside["law"]["stress_rmse_GPa"]
    assert told["rotations"] == 24 and told["rotations_100"]["stress"] < 1e-12
    assert told["elastic_tensor_GPa"][0][1] == pytest.approx(told["elastic_tensor_GPa"][3][3], rel=1e-4)
    law = Law.load(tmp_path / "law.safetensors")
    assert np.abs(law.stress(np.eye(3))).max() < 1e-10
    for name in ("constitutive.png", "constitutive.html", "law.py"):
        assert (tmp_path / name).stat().st_size > 0
    # Everything that was computed is read again; the law, whose training is not kept, would be trained again.
    monkeypatch.setattr(command, "label", None)
    monkeypatch.setattr(command, "fit", lambda data, *rest, **named: trained[0])
    again = command.run(task(tmp_path, REST, resume=True), QUICK)
    assert again.summary == outcome.summary


def test_a_reference_under_stress_and_a_law_that_is_not_good_are_told(tmp_path, page):
    poor = dataclasses.replace(QUICK, training=Training(adam_steps=0, lbfgs_steps=1, report_every=1))
    outcome = command.run(task(tmp_path, 1.01 * REST), poor)
    said = " ".join(outcome.failures)
    assert "has a stress of" in said and "inside the range is off by" in said
    assert json.loads((tmp_path / "constitutive.json").read_text())["failures"] == list(outcome.failures)


def test_lists_and_molecules_are_refused(tmp_path):
    one = task(tmp_path, REST)
    with pytest.raises(ValueError, match="FILE@-1"):
        command.run(one._replace(structures=[*one.structures, *one.structures]), QUICK)
    lone = Structure(np.array([18]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="three directions"):
        command.run(one._replace(structures=[lone]), QUICK)


def test_settings_are_those_of_a_config():
    built = config.build(ConstitutiveConfig, {}, overrides=["law.network=Convex", "sampling.bounds.shear=0.1"])
    assert built.law.network == Convex() and built.sampling.bounds.shear == 0.1
    assert config.dump(ConstitutiveConfig())["law"]["network"]["kind"] == "Unconstrained"
    for wrong in ("sampling.reach=0.5", "training.validation=1.0", "tolerance=2.0", "sampling.bounds.volume=0.0"):
        with pytest.raises(ValueError, match=wrong.split("=")[0].rsplit(".")[-1]):
            config.build(ConstitutiveConfig, {}, overrides=[wrong])
