import numpy as np
import pytest

from equipot.data import bundled
from equipot.data.checks.frames import check
from equipot.data.config import DataConfig
from equipot.data.read import load_data, read
from equipot.data.stats import is_isolated_atom


def test_names_and_parts():
    assert bundled.names() == ["ethanol", "silicon", "water"]
    for name in bundled.names():
        everything, train, test = bundled.load(name), bundled.load(f"{name}/train"), bundled.load(f"{name}/test")
        assert len(everything) == len(train) + len(test)
        assert any(map(is_isolated_atom, train)) and not any(map(is_isolated_atom, test))
        assert train[0].source == f"bundled:{name}, frame 0"
    assert len(read("bundled:silicon/test@:3")) == 3
    with pytest.raises(ValueError, match="no bundled set 'wine'; choose from ethanol, silicon, water"):
        read("bundled:wine")
    with pytest.raises(ValueError, match="has no part 'valid'; choose from test, train"):
        read("bundled:ethanol/valid")


@pytest.mark.parametrize("name", ["ethanol", "silicon"])
def test_bundled_sets_pass_the_checks(name):
    data = load_data(DataConfig(f"bundled:{name}/train", test=f"bundled:{name}/test"), 0)
    assert not data.report.errors and not data.report.warnings
    assert data.origin == "isolated" and len(data.train) >= 60 and len(data.test) >= 30
    for s in data.train:
        assert np.abs(s.forces.sum(axis=0)).max() < 1e-3
        assert (s.stress is not None) == (name == "silicon")


def test_a_stress_of_the_wrong_sign_is_seen_in_the_bundled_set():
    wrong = [s.replace(stress=-s.stress) for s in bundled.load("silicon/test")]
    assert "reverse its sign" in str(check({"train": wrong}))


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in bundled.FOLDER.iterdir()) < 1_000_000
    assert (bundled.FOLDER / "README.md").exists()
