"""Every config that the package brings loads, as it stands, into the section that its command reads; and it runs, cut short."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms
from flax import linen as nn
from pair_crystals import make_argon

from equipot import cli, config, eqp
from equipot.cli.recipes import recipes
from equipot.data import bundled
from equipot.data.batch import pad
from equipot.md.config import MDConfig
from equipot.md.ensembles import Ensemble
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.potential import Potential
from equipot.term import Atomic, Term
from equipot.training import TrainConfig
from equipot.workflows.neb import NEBConfig
from equipot.workflows.phonons import PhononsConfig
from equipot.workflows.relax import RelaxConfig

FOLDER = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


WORKFLOWS = {"relax": RelaxConfig, "phonons": PhononsConfig, "neb": NEBConfig}


def section(name: str) -> type:
    return WORKFLOWS.get(name.partition("-")[0]) or (MDConfig if name.startswith("md-") else TrainConfig)


def test_the_package_and_the_repository_have_the_same():
    assert sorted(recipes()) == NAMES
    some = "quickstart", "mace-molecules", "nequip-molecules", "mace-crystals", "mace-liquids", "delta-molecules", "finetune"
    assert set(some) <= set(NAMES)


def test_there_is_one_for_each_ensemble():
    names = [name for name in NAMES if name.startswith("md-")]
    found = {type(config.load(FOLDER / f"{name}.yaml", MDConfig).ensemble).__name__ for name in names}
    assert found == set(Ensemble.builtin_kinds)


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_survives_being_written(name, tmp_path):
    settings = config.load(FOLDER / f"{name}.yaml", section(name))
    (tmp_path / "again.yaml").write_text(config.to_yaml(settings))
    assert config.load(tmp_path / "again.yaml", section(name)) == settings


class Bumps(Term):
    """A soft repulsion without parameters, so that dynamics compile at once."""

    @nn.compact
    def __call__(self, graph, vectors):
        x = jnp.sum(vectors**2, axis=-1) / self.cutoff**2
        return Atomic(energy=0.01 * jnp.sum(jnp.where(graph.slot_mask & (x < 1), (1 - jnp.minimum(x, 1)) ** 3, 0.0), axis=-1))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("md-")])
def test_dynamics_recipe_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    eqp.save(Potential(Bumps(3.0), {}, Metadata(atomic_energies=((1, 0.0), (6, 0.0), (8, 0.0), (14, 0.0)))), "model.eqp")
    short = ["model=model.eqp", "steps=20", "chunk_steps=10", "trajectory.every=10"]
    if "repeat" in (FOLDER / f"{name}.yaml").read_text():
        short += ["repeat=[1, 1, 1]"]
    assert cli.main(["md", name, *(word for text in short for word in ("--set", text))]) == 0
    assert len(Path(f"runs/{name}/log.csv").read_text().splitlines()) >= 3


def structures_for(name: str) -> list[Atoms]:
    if not name.startswith("neb-"):
        return [bulk("Ar", "fcc", a=3.5)]
    slab, ends = fcc111("Ar", (2, 2, 2), a=3.42, vacuum=6.0), []
    for site in ("fcc", "hcp"):
        ends.append(slab.copy())
        add_adsorbate(ends[-1], "Ar", 1.9, site)
        ends[-1].set_constraint(FixAtoms(range(len(slab))))
    return ends


@pytest.mark.parametrize("name", [name for name in NAMES if name.partition("-")[0] in WORKFLOWS])
def test_workflow_recipe_runs(name, tmp_path, monkeypatch):
    """By the name of the recipe, of whose settings only those are changed that cost time."""
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    eqp.save(make_argon(), "argon.eqp")
    ase.io.write("given.xyz", structures_for(name))
    command = name.partition("-")[0]
    small = {
        "phonons": ["supercell=[2, 2, 2]", "mesh_length=10", "qha.volumes=5", "max_temperature_K=40", "temperature_step_K=10"],
        "neb": ["images=5"],
        "relax": [],
    }[command]
    words = [word for text in small for word in ("--set", text)]
    assert cli.main([command, "argon.eqp", "given.xyz", "--config", name, *words]) == 0
    told = json.loads(Path(f"runs/{command}-given/{command}.json").read_text())
    assert told["failures"] == []
    if command == "relax":
        assert told["settings"]["pressure_GPa"] == 10 and told["structures"][0]["space_group_kept"] == "Fm-3m (225)"
    if command == "neb":
        assert set(told["rate"]["rates_per_s"]) == {"200_K", "300_K", "500_K"} and told["saddle"]["converged"]
    if command == "phonons":
        assert told["quasi_harmonic"]["thermal_expansion_per_K"][-1] > 0 and told["imaginary_modes"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if section(name) is TrainConfig and name != "finetune"])
def test_training_recipe_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    small = ["data.limit=8", "data.valid=4", "data.test=null", "training.epochs=1", "model.channels=4", "model.l_max=1"]
    small += ["training.devices=1", "model.layers=2", "model.radial.mlp=[8]"]
    if name == "polar-molecules":
        # The network is the base of the charges.
        small = [text.replace("model.", "model.base.") for text in small]
    if name == "delta-molecules":
        # The calculator that is always there.
        small += ["data.subtract={calculator: emt}"]
    assert cli.main(["train", name, *(word for text in small for word in ("--set", text))]) == 0
    assert eqp.load(f"runs/{name}/best.eqp").elements


@pytest.mark.slow
def test_fine_tuning_recipe_runs(tmp_path, monkeypatch, capsys):
    """On a base of the user's and a file of his, with everything in it that the comments offer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    frames = [s for s in bundled.load("ethanol/train") if len(s) > 1][:10]
    ase.io.write("mine.xyz", [s.to_ase() for s in frames])
    term = MACE(4.0, elements=(1, 6, 8), channels=10, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))
    energies = Metadata(atomic_energies=((1, -10.0), (6, -50.0), (8, -110.0)))
    eqp.save(fresh(term, pad(frames[:1], 4.0), jax.random.key(0), energies), "base.eqp")
    offered = ["data.replay={files: mine.xyz@0:6, labels: base}", "data.forget={same: mine.xyz@6:8}", "model.adapters.rank=2"]
    offered += ["model.rates={interaction0: 0.1, embedding: 0.0}", "model.atomic_energies=refit"]
    small = ["model.from=base.eqp", "data.train=mine.xyz", "training.epochs=1", "training.devices=1", *offered]
    assert cli.main(["train", "finetune", *(word for text in small for word in ("--set", text))]) == 0
    base, best = eqp.load("base.eqp"), eqp.load("runs/finetune/best.eqp")
    said = capsys.readouterr().out
    assert "E0 of H, C, O (fitted to what the base leaves)" in said and "through adapters" in said and "same: base: E" in said
    assert np.array_equal(best.variables["params"]["embedding"]["w"], base.variables["params"]["embedding"]["w"])
    assert cli.main(["evaluate", "runs/finetune/best.eqp", "mine.xyz"]) == 0
    heads = ["data.train=[]", "data.heads={new: {train: mine.xyz, valid: 0.1}}", "model.head=old", "model.from=base.eqp"]
    heads += ["training.epochs=1", "training.devices=1"]
    assert cli.main(["train", "finetune", "--out", "runs/heads", *(word for text in heads for word in ("--set", text))]) == 0
    assert cli.main(["evaluate", "runs/heads/best.eqp@new", "mine.xyz"]) == 0
    capsys.readouterr()
    for command in (["evaluate", "runs/heads/best.eqp", "mine.xyz"], ["doctor", "runs/heads/best.eqp"]):
        assert cli.main(command) == 2
        assert "several heads, old, new: choose one, with potential.head('old'), or with FILE@old" in capsys.readouterr().err
