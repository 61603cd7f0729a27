"""A method on the host beside a correction: its forces and its stress are those of the method, and dynamics follow both."""

from __future__ import annotations

import dataclasses

import ase.io
import jax
import numpy as np
import pytest
from ase.calculators.emt import EMT

import equipot
from equipot import config, eqp, md, uncertainty
from equipot.data.batch import pad
from equipot.data.method import method_of, start
from equipot.md.config import MDConfig
from equipot.md.driver import Explosion
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.external import with_method
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, evaluate, initial
from equipot.quantities import ENERGY, FORCES, STRESS
from equipot.structure import Structure

COPPER = Structure(
    [29] * 4,
    [[0.1, 0, 0], [0, 1.8, 1.9], [1.7, 0, 1.8], [1.8, 1.9, 0.1]],
    [[3.6, 0.1, 0], [-0.2, 3.7, 0], [0.1, 0, 3.5]],
    True,
)


def correction(structure):
    term = LennardJones(3.0)
    variables = initial(term, jax.random.key(0), pad([structure], 3.0))
    return Potential(term, variables, Metadata(((29, -1.5),), subtracted=method_of({"calculator": "emt"})))


@pytest.mark.parametrize("structure", [COPPER, COPPER.replace(pbc=np.zeros(3, bool), cell=np.zeros((3, 3)))])
def test_derivatives_are_the_sum_of_both(structure, double_precision):
    alone = correction(structure).astype("float64")
    runner = start(alone.metadata.subtracted, "here")
    both, zero = with_method(alone, runner, structure)
    want = ("forces", "stress") if structure.pbc.any() else ("forces",)
    graph = pad([structure], 3.0, dtype=np.float64, extent=both.extent([structure]))
    found, own, rest = evaluate(both, graph, want), runner.run(structure), evaluate(alone, graph, want)
    assert zero == round(own[ENERGY]) and abs(own[ENERGY]) > 0.1
    assert float(found.interaction[0]) + zero == pytest.approx(float(rest.interaction[0]) + own[ENERGY], abs=1e-10)
    np.testing.assert_allclose(found.forces, rest.forces + own[FORCES], rtol=0, atol=1e-10)
    if STRESS in own:
        np.testing.assert_allclose(found.stress[0], rest.stress[0] + own[STRESS], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="emt is called for one system at a time, not for 2"):
        evaluate(both, pad([structure] * 2, 3.0, dtype=np.float64, extent=both.extent([structure])), want)


def failing(whole, count):
    """A function that raises after some calls."""
    left = [count]

    def call(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("no convergence")
        return whole(*arguments, **options)

    return call


def test_dynamics_follow_both(tmp_path, monkeypatch):
    """Where the method fails on the way, the run ends as of an explosion."""
    potential = correction(COPPER)
    eqp.save(potential, tmp_path / "delta.eqp")
    ase.io.write(tmp_path / "start.xyz", COPPER.to_ase())
    settings = {"model": str(tmp_path / "delta.eqp"), "structure": str(tmp_path / "start.xyz"), "steps": 4, "log_every": 2}
    more = {"ensemble": "NVE", "trajectory": {"kind": "ExtXYZ", "every": 2}, "dtype": "float64", "timestep_fs": 1.0}
    md.run(config.build(MDConfig, {**settings, **more}), tmp_path / "run", progress=None)
    frames = ase.io.read(tmp_path / "run" / "trajectory.xyz", ":")
    assert len(frames) == 3 and np.abs(frames[-1].positions - frames[0].positions).max() > 1e-3
    monkeypatch.setattr(EMT, "calculate", failing(EMT.calculate, 2))
    with pytest.warns(UserWarning, match="emt failed"), pytest.raises(Explosion, match="not finite"):
        md.run(config.build(MDConfig, {**settings, **more}), tmp_path / "broken", progress=None)
    monkeypatch.undo()
    for atoms in frames:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = potential.astype("float64").calculator()
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-5)
        atoms.calc = EMT()
        assert abs(energy - atoms.get_potential_energy()) > 1.0


@pytest.fixture(scope="module")
def unsure():
    """A correction by a network, with an estimate of its uncertainty, and a cluster of copper."""
    cluster = COPPER.replace(pbc=np.zeros(3, bool), cell=np.zeros((3, 3)))
    term = MACE(3.0, elements=(29,), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))
    metadata = Metadata(((29, -1.5),), subtracted=method_of({"calculator": "emt"}))
    bare = fresh(term, pad([cluster], 3.0), jax.random.key(0), metadata, scale=[0.01])
    rng, labelled = np.random.default_rng(0), []
    frames = [cluster.replace(positions=cluster.positions + 0.03 * rng.normal(size=(4, 3))) for _ in range(20)]
    for frame, out in zip(frames, equipot.evaluate_each(bare, frames, want=("energy", "forces")), strict=True):
        labels = {ENERGY: float(out.energy) + 0.01 * rng.normal(), FORCES: out.forces + 0.03 * rng.normal(size=(4, 3))}
        labelled.append(frame.replace(labels=labels))
    return uncertainty.fit(bare, frames, calibrate=labelled), cluster


def test_dynamics_of_a_correction_have_its_uncertainty(unsure, tmp_path):
    potential, cluster = unsure
    gate = md.Gate(record=1e-6, every=10, record_novelty=1e6)
    run = MDConfig("-", "-", md.NVE(), 20, 1.0, 300.0, dtype="float64", gate=gate, trajectory=md.ExtXYZ(every=10))
    md.simulate(potential, cluster, run, tmp_path / "run", progress=None)
    frames = ase.io.read(tmp_path / "run" / "recorded.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 10, 20]
    alone = potential.correction.replace(posterior=potential.posterior).astype("float64")
    for frame, out in zip(frames, equipot.evaluate_each(alone, frames, want=("forces_std", "novelty")), strict=True):
        for name in ("forces_std", "novelty"):
            np.testing.assert_allclose(frame.arrays[name], out.others[name], rtol=1e-5)
    novelty = [frame.arrays["novelty"].max() for frame in frames]
    stopping = md.Gate(novelty=float(0.5 * (novelty[0] + max(novelty))))
    with pytest.raises(md.Halted, match="has a novelty of"):
        md.simulate(potential, cluster, dataclasses.replace(run, gate=stopping), tmp_path / "halted", progress=None)
