"""Every config that the package brings loads, as it stands, into the section that its command reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipot import config
from equipot.cli.recipes import recipes
from equipot.md.config import MDConfig
from equipot.training import TrainConfig

FOLDER = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def section(name: str) -> type:
    return MDConfig if name.startswith("md-") else TrainConfig


def test_the_package_and_the_repository_have_the_same():
    assert sorted(recipes()) == NAMES
    assert {"quickstart", "mace-molecules", "nequip-molecules", "mace-metal"} <= set(NAMES)


def test_there_is_one_for_each_ensemble():
    names = [name for name in NAMES if name.startswith("md-")]
    found = {type(config.load(FOLDER / f"{name}.yaml", MDConfig).ensemble).__name__ for name in names}
    assert found == {"NVE", "NVTNoseHoover", "NVTLangevin", "NVTCSVR", "NPTIsotropic", "NPTFlexible"}


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_survives_being_written(name, tmp_path):
    settings = config.load(FOLDER / f"{name}.yaml", section(name))
    (tmp_path / "again.yaml").write_text(config.to_yaml(settings))
    assert config.load(tmp_path / "again.yaml", section(name)) == settings
