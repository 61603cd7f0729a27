"""An ensemble that is defined here, and nowhere in the package: a config names it, and a run takes its steps."""

import io
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import ase.io
import numpy as np
import pytest

import equipot
from equipot import config as yaml
from equipot import md
from equipot.md import log
from equipot.md.ensembles.steps import kinetic_of, velocity_verlet


@dataclass(frozen=True)
class Rescaled(md.Ensemble):
    """Momenta scaled to ``share`` of the config's temperature after each step of velocity Verlet."""

    needs_motion: ClassVar[bool] = True
    share: float = 1.0

    def __post_init__(self):
        self.check_positive("share")

    def start(self, setup, state):
        wanted = self.share * setup.dof * setup.kT / 2
        return state.replace(momentum=state.momentum * (wanted / kinetic_of(setup, state)) ** 0.5)

    def step(self, setup, forces, state, neighbor):
        state, neighbor = velocity_verlet(setup, forces, state, neighbor)
        before, scaled = kinetic_of(setup, state), self.start(setup, state)
        return scaled.replace(heat=state.heat + kinetic_of(setup, scaled) - before), neighbor

    def reservoir(self, setup, state):
        return -state.heat


def text(tmp_path, kind, steps, **parameters):
    return f"""
model: {tmp_path}/lj.eqp
structure: {tmp_path}/start.xyz
ensemble: {{kind: '{kind}', {", ".join(f"{name}: {value}" for name, value in parameters.items())}}}
steps: {steps}
timestep_fs: 4
temperature_K: 40
skin: 0.8
log_every: 10
trajectory: {{kind: ExtXYZ, every: 20}}
chunk_steps: 20
dtype: float64
"""


def test_an_ensemble_of_ones_own_runs_and_resumes(potential, solid, tmp_path):
    """The temperature is exactly what the ensemble says, its account of energy is kept, and a cut run ends as a whole one."""
    equipot.save(potential.astype("float64"), tmp_path / "lj.eqp")
    ase.io.write(tmp_path / "start.xyz", solid.to_ase())
    told = io.StringIO()
    for steps, folder in ((80, "whole"), (40, "cut"), (80, "cut")):
        (tmp_path / "md.yaml").write_text(text(tmp_path, f"{__name__}:Rescaled", steps, share=0.5))
        config = yaml.load(tmp_path / "md.yaml", md.MDConfig)
        md.run(config, tmp_path / folder, resume=(tmp_path / folder).exists(), progress=told)
    assert "Rescaled: 32 atoms, 40 K" in told.getvalue()
    assert yaml.load(tmp_path / "cut" / "config.yaml", md.MDConfig) == config
    assert config.ensemble == Rescaled(0.5)
    table = log.read(tmp_path / "whole" / "log.csv")
    np.testing.assert_allclose(table["temperature_K"], 20.0, rtol=1e-9)
    assert np.ptp(table["total_eV"]) > 20 * np.ptp(table["conserved_eV"])
    for name in ("log.csv", "trajectory.xyz"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_config_names_what_is_wrong_with_an_ensemble(tmp_path):
    path = tmp_path / "md.yaml"
    refused = {
        f"{__name__}:Rescaled": "share is -1.0; give a number above zero",
        "NVTlangevin": "ensemble.kind: no such kind 'NVTlangevin'; did you mean `NVTLangevin`",
        f"{__name__}:yaml": "is not a dataclass",
        "equipot.md:MDConfig": "equipot.md:MDConfig is not a Ensemble",
    }
    for kind, message in refused.items():
        path.write_text(text(tmp_path, kind, 10, share=-1.0))
        with pytest.raises(yaml.ConfigError, match=message):
            yaml.load(path, md.MDConfig)


def test_the_ensembles_of_a_config_are_the_names_that_the_package_offers():
    assert list(md.ensembles.builtin()) == list(md.Ensemble.builtin_kinds)
    for name, cls in md.ensembles.builtin().items():
        assert cls.__name__ == name and issubclass(cls, md.Ensemble)
        for module in (md, md.ensembles):
            assert getattr(module, name) is cls and name in dir(module) and name in module.__all__
    with pytest.raises(ImportError):
        from equipot.md import NVP  # noqa: F401


def test_a_config_with_chains_is_read_without_jax_md():
    code = """
import sys
sys.modules["jax_md"] = None
from equipot import config
from equipot.md.config import MDConfig
made = config.build(MDConfig, {"model": "-", "structure": "-", "ensemble": {"kind": "NVTNoseHoover", "chain_length": 4}})
assert made.ensemble.chain_length == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True)
