"""The constants of the elements, solved for after fine-tuning."""

import dataclasses
import io
import json
import re

import jax
import numpy as np
import pytest
import tiny
from tuning import labelled, shifted, tune, write

import equipot
from equipot import eqp
from equipot.data.batch import pad
from equipot.data.draw import Replayed
from equipot.data.split import Chain
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.heads import join
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.guard import Wall, guard
from equipot.quantities import ENERGY
from equipot.training.beginning import Beginning
from equipot.training.closing import weighted_as_drawn
from equipot.training.shifts import has_shifts, refit_shifts, told

pytestmark = pytest.mark.usefixtures("compile_once", "no_plots")
# The order of the elements of a network is its own.
TERM = MACE(3.5, elements=(8, 1), channels=4, l_max=1, hidden_l=0, correlation=1, layers=1, radial=Radial(mlp=(4,)))


def network(term=TERM, seed=1):
    frame = pad(tiny.structures(1, 3, (4, 4)), 3.5)
    return fresh(term, frame, jax.random.key(seed), Metadata(tuple(tiny.ENERGIES.items())), scale=0.3)


@pytest.fixture(scope="module")
def base(tmp_path_factory, compile_once):
    path = tmp_path_factory.mktemp("base") / "base.eqp"
    eqp.save(network(), path)
    return path


def test_energies_that_are_off_by_element_are_put_right_and_nothing_else_changes(base):
    frames = labelled(base, tiny.structures(12, 4, (2, 4)))
    off = shifted(frames, {1: 0.02, 8: -0.3})
    found, said = refit_shifts(network(), off, off[:3])
    assert re.match(r"O -0\.3 eV, H \+0\.02 eV; mean absolute error of 12 energies 0.182 -> .*e-.* eV/atom", said)
    for x, s in zip(equipot.evaluate_each(found, frames, want=("energy", "forces")), off, strict=True):
        assert abs(x.energy - s.labels[ENERGY]) < 1e-4 * len(s)
        np.testing.assert_array_equal(x.forces, s.forces)
    outlier = [*off, off[0].replace(energy=off[0].energy + 5.0)]
    again, _ = refit_shifts(network(), outlier, off[:3])
    shift = lambda potential: np.asarray(potential.variables["constants"]["shift"])
    np.testing.assert_allclose(shift(again), shift(found), atol=0.02)


def test_an_element_that_no_frame_has_keeps_its_constant(base):
    hydrogen = [s.replace(numbers=np.ones_like(s.numbers)) for s in tiny.structures(8, 4, (2, 4))]
    off = shifted(labelled(base, hydrogen), {1: 0.1})
    found, _ = refit_shifts(network(), off, off)
    change = np.asarray(found.variables["constants"]["shift"]) - np.asarray(network().variables["constants"]["shift"])
    assert change[0] == 0 and abs(change[1] - 0.1) < 1e-3
    # One frame of an element decides nothing.
    one = [s.replace(numbers=np.full_like(s.numbers, 8), energy=9.0) for s in hydrogen[:1]]
    again, _ = refit_shifts(network(), [*off, *one], off)
    assert np.asarray(again.variables["constants"]["shift"])[0] == np.asarray(network().variables["constants"]["shift"])[0]


def test_heads_have_constants_of_their_own(base):
    joined = join({"low": network(), "high": network()})
    frames = labelled(base, tiny.structures(12, 4, (2, 4)))
    count = {z: -e for z, e in tiny.ENERGIES.items()}
    one = [s.replace(head=1) for s in shifted(frames, {1: count[1] + 0.2, 8: count[8] - 0.1})]
    found, said = refit_shifts(joined, one, one)
    before, after = (np.asarray(p.variables["constants"]["heads"]["shift"]) for p in (joined, found))
    np.testing.assert_allclose(after - before, [[0, 0], [-0.1, 0.2]], atol=1e-4)
    assert re.match(r"O \(high\) -0\.1 eV, H \(high\) \+0\.2 eV", said) and "low" not in said


def test_what_is_not_done_is_said(base):
    frames = labelled(base, tiny.structures(12, 4, (2, 4)))
    with pytest.raises(ValueError, match="3 energies are too few for the constants of 2 elements"):
        refit_shifts(network(), shifted(frames[:3]), frames)
    potential, said = refit_shifts(network(), shifted(frames), frames)
    assert "left as trained: validation says energy" in said
    np.testing.assert_array_equal(potential.variables["constants"]["shift"], network().variables["constants"]["shift"])
    bare = [s.replace(energy=None) for s in frames]
    with pytest.raises(ValueError, match="0 energies are too few for the constants of 1 elements"):
        refit_shifts(network(), bare, frames)
    assert "mean absolute error of 12 energies" in refit_shifts(network(), shifted(frames), bare)[1]


def test_many_constants_are_told_in_one_number():
    term = TERM.clone(elements=tuple(range(1, 13)))
    potential = fresh(term, pad(tiny.structures(1, 3, (4, 4)), 3.5), jax.random.key(0), Metadata())
    assert told(potential, np.full(12, 0.25)) == "12 changed by 0.25 eV (RMS)"


def test_only_a_network_alone_has_them():
    assert has_shifts(network()) and not has_shifts(guard(network(), Wall()))


def test_a_tuned_run_ends_with_them_and_does_not_do_it_twice(base, tmp_path):
    """Hydrogen with 0.1 eV per atom more than the base has; hydroxides are replayed, and have to keep their energies."""
    of = lambda numbers, count, seed: [s.replace(numbers=numbers) for s in tiny.structures(count, seed, (4, 4))]
    new = shifted(labelled(base, of([1, 1, 1, 1], 12, 20)), {1: 0.1})
    data = {
        "train": write(tmp_path / "new.xyz", new[:8]), "valid": write(tmp_path / "valid.xyz", new[8:]),
        "replay": {"files": write(tmp_path / "old.xyz", labelled(base, of([1, 8, 8, 8], 8, 21)))},
        "forget": {"old": write(tmp_path / "watched.xyz", labelled(base, of([1, 8, 8, 8], 6, 22)))},
    }  # fmt: skip
    errors, training = {}, {"epochs": 6, "ema": None}
    for refit in (False, True):
        out, stream = tmp_path / str(refit), io.StringIO()
        best = tune(out, base, data, training={**training, "refit": refit}, progress=stream)
        assert ("constants of the elements: O" in stream.getvalue()) == (out / "refit.json").exists() == refit
        found = json.loads((out / "errors.json").read_text())
        errors[refit] = {name: found[name]["energy_mae_per_atom"] for name in ("training", "old")}
        errors[refit]["forces"] = found["old"]["forces_mae"]
    assert errors[True]["training"] < 1.1 * errors[False]["training"] and errors[True]["old"] < 0.7 * errors[False]["old"]
    assert errors[True]["forces"] == errors[False]["forces"]
    content = best.read_bytes()
    tune(out, base, data, training={**training, "refit": True}, resume=True)
    assert best.read_bytes() == content
    with pytest.raises(ValueError, match="replayed frames in an epoch: 7 -> 4"):
        tune(
            out, base, {**data, "replay": {**data["replay"], "share": 1 / 3}}, training={**training, "refit": True}, resume=True
        )


def test_replayed_energies_count_as_often_as_they_are_drawn():
    new, pool = tiny.structures(4, 1), tiny.structures(20, 2)
    dataset = dataclasses.replace(tiny.dataset(), train=Chain((new, pool)))
    frames = weighted_as_drawn(Beginning(None, dataset, None, None, {}, {}, Replayed(20, 4)))
    assert [s.weight for s in frames] == [1.0] * 4 + [0.2] * 20
