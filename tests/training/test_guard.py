"""Training with a wall: its radii come from the training data, also in fine-tuning, and stay where a run is resumed."""

from __future__ import annotations

import numpy as np
import tiny
from tuning import tune, write

from equipot import eqp
from equipot.data.closest import closest_distances
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.guard import MARGIN, Guarded, Wall, outer_radii
from equipot.training import checkpoint

WIDE = Wall(share_in_training=1.0, width=1.0)
"""So wide that the data limit it."""


def newest(out):
    return checkpoint.newest(out / "checkpoints").arrays


def test_a_wall_is_fitted_to_the_data_and_survives_a_resumption(tmp_path, compile_once):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = Guarded(tiny.Tiny(3.5), WIDE)
    best = eqp.load(tiny.run(whole, {"epochs": 2}, model=model))
    found = closest_distances(tiny.dataset().train, 3.5)
    assert (MARGIN * found[1, 8] < 2 * 0.97) and outer_radii(best)[1, 8] == np.float32(MARGIN * found[1, 8])
    np.testing.assert_array_equal(outer_radii(best), WIDE.outer_radii(3.5, found).astype(np.float32))
    tiny.run(broken, {"epochs": 2, "max_minutes": 1e-9}, model=model)
    again = eqp.load(tiny.run(broken, {"epochs": 2}, resume=True, model=model))
    np.testing.assert_array_equal(outer_radii(again), outer_radii(best))
    assert newest(broken).keys() == newest(whole).keys()
    for name, value in newest(whole).items():
        np.testing.assert_array_equal(newest(broken)[name], value, name)


def test_the_base_of_a_fine_tuning_gets_a_wall_below_the_data(tmp_path, compile_once):
    base = tiny.run(tmp_path / "base", {"epochs": 1})
    close = [s.replace(positions=0.3 * s.positions) for s in tiny.structures(6, 5, (4, 4), periodic=False)]
    data = {"train": write(tmp_path / "close.xyz", close), "valid": 0, "min_distance": 0.1}
    found = closest_distances(close, 3.5)
    tuned = eqp.load(tune(tmp_path / "one", base, data, training={"epochs": 1}, guard=True))
    expected = np.minimum(Wall().outer_radii(3.5), MARGIN * found)
    assert isinstance(tuned.term, Guarded) and expected[8, 8] < Wall().outer_radii(3.5)[8, 8]
    np.testing.assert_allclose(outer_radii(tuned), expected, rtol=1e-6)
    far = {"train": write(tmp_path / "far.xyz", tiny.structures(6, 7, (4, 4), periodic=False)), "valid": 0}
    again = eqp.load(tune(tmp_path / "two", tmp_path / "one" / "best.eqp", far, training={"epochs": 1}, guard=True))
    assert again.term == tuned.term
    np.testing.assert_array_equal(outer_radii(again), outer_radii(tuned))


def test_charges_are_trained_beside_a_network_with_a_wall(tmp_path):
    frames = [
        s.replace(labels={**s.labels, "charges": np.array([0.3, -0.1, -0.1, -0.1])}) for s in tiny.structures(4, 0, (4, 4))
    ]
    term = Electrostatics(base=Guarded(MACE(3.5, channels=2, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,))), WIDE))
    changes = {"epochs": 1, "loss": {"charges": {"kind": "MSE"}}}
    made = eqp.load(tiny.run(tmp_path, changes, train=frames, model=term))
    np.testing.assert_array_equal(outer_radii(made), WIDE.outer_radii(3.5, closest_distances(frames, 3.5)).astype(np.float32))
    assert "charges" in (tmp_path / "metrics.jsonl").read_text() and isinstance(made.term.base, Guarded)
