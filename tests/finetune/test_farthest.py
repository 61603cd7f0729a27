"""The frames to replay that are chosen are spread out, and the same when a run is resumed."""

import io
import json

import jax
import numpy as np
import pytest
import tiny
from tuning import labelled, tune, write

from equipot import eqp
from equipot.data.batch import pad
from equipot.finetune import measurement
from equipot.finetune.farthest import Environments, environments, farthest
from equipot.metadata import Metadata
from equipot.models import fresh, initial
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential
from equipot.training import checkpoint

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")


def on_a_line(*places, numbers=None):
    places = np.array(places, float)
    return Environments(np.full(len(places), 6) if numbers is None else np.array(numbers), places[:, None])


def test_the_next_frame_is_the_farthest_from_all_before():
    pool = [on_a_line(x) for x in (1.0, 2.0, 10.0, 6.0, 5.5)]
    # 10 is farthest from 0; then 5.5, which is 4.5 from 10; then 2, which is 2 from 0.
    for count, chosen in enumerate(([], [2], [2, 4], [1, 2, 4]), start=0):
        assert farthest(pool, [on_a_line(0.0)], count).tolist() == chosen
    assert farthest(pool, [], 9).tolist() == [0, 1, 2, 3, 4]


def test_one_atom_that_is_far_is_enough():
    assert farthest([on_a_line(1.0, 1.0), on_a_line(0.0, 0.0, 3.0)], [on_a_line(0.0)], 1).tolist() == [1]


def test_elements_that_no_frame_has_come_first():
    pool = [on_a_line(90.0), on_a_line(0.0, 1.0, numbers=[8, 1]), on_a_line(0.0, numbers=[1]), on_a_line(0.0, numbers=[3])]
    assert farthest(pool, [on_a_line(0.0)], 2).tolist() == [1, 3]
    assert farthest(pool, [on_a_line(0.0)], 3).tolist() == [0, 1, 3]


def test_elements_that_vary_little_are_not_left_out():
    pool = [on_a_line(k * step, numbers=[z]) for z, step in ((3, 0.5), (14, 5.0)) for k in range(10)]
    chosen = farthest(pool, [on_a_line(7.0)], 6)
    assert np.sum(chosen < 10) == np.sum(chosen >= 10) == 3


def test_what_an_element_does_not_vary_in_is_not_blown_up():
    random = np.random.default_rng(0)
    latent = lambda k, z: np.concatenate([[10.0 * (z == 8), k], 1e-8 * random.normal(size=20) + (z == 8)])[None]
    pool = [Environments(np.array([z]), latent(k, z)) for z in (1, 8) for k in range(20)]
    chosen = farthest(pool, [], 6)
    assert {0, 19, 20, 39} <= set(chosen.tolist())


def test_a_base_without_descriptors_cannot_choose():
    structures = tiny.structures(2, 1, (3, 3))
    term = LennardJones(cutoff=3.0)
    variables = initial(term, jax.random.key(0), pad(structures, 3.0))
    potential = Potential(term, variables, Metadata(atomic_energies=tuple(tiny.ENERGIES.items())))
    with pytest.raises(ValueError, match=r"data.replay.most: .* leave it out"):
        environments(potential, structures, 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    term = MACE(3.0, elements=(1, 8), channels=2, l_max=1, correlation=2, radial=Radial(mlp=(4,)))
    path = tmp_path_factory.mktemp("base") / "base.eqp"
    metadata = Metadata(atomic_energies=tuple(tiny.ENERGIES.items()))
    eqp.save(fresh(term, pad(tiny.structures(2, 3, (4, 4)), 3.0), jax.random.key(0), metadata, scale=0.3), path)
    return path


def test_chosen_frames_are_replayed_and_chosen_once(base, tmp_path, monkeypatch):
    new, old = tiny.structures(4, 1, (4, 4)), [s.without_labels() for s in tiny.structures(20, 2, (4, 4))]
    data = {
        "train": write(tmp_path / "new.xyz", labelled(base, new)), "valid": 0,
        "replay": {"files": write(tmp_path / "old.xyz", old), "labels": "base", "most": 3, "valid": 0.2},
    }  # fmt: skip
    stream = io.StringIO()
    tune(tmp_path / "run", base, data, training={"epochs": 1, "max_minutes": 1e-9}, progress=stream)
    assert "of 3 frames in every epoch" in stream.getvalue()
    # One frame of validation keeps its place: choosing is for what is trained on.
    assert json.loads((tmp_path / "run" / "base-errors.json").read_text())["replay"]["frames"] == 4
    first = checkpoint.TRAINING.read(tmp_path / "run" / "base.safetensors")[1]["replayed"]
    assert len(set(first)) == 3
    # Another device may choose others, by the last digits: a resumed run keeps what was chosen.
    monkeypatch.setattr(measurement, "farthest", lambda *_: np.array([0]))
    tune(tmp_path / "run", base, data, training={"epochs": 1}, resume=True)
    assert checkpoint.TRAINING.read(tmp_path / "run" / "base.safetensors")[1]["replayed"] == first
