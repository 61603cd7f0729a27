"""equipot in single precision, as it is or compressed."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from benchmarks.peers.items import CUTOFF, ITEMS, SPLINES, Item
from benchmarks.peers.systems import load
from benchmarks.peers.worker import Ready, serve
from equipot import import_checkpoint
from equipot.data.batch import pad
from equipot.data.loader import plan_training
from equipot.data.loader import prepare as find
from equipot.models import fresh
from equipot.models.compress import compress
from equipot.models.nequip import NaturalParity, NequIP
from equipot.nn.radial import PolynomialEnvelope, Radial
from equipot.potential import Metadata, Potential, evaluate
from equipot.structure import Structure
from equipot.training.loop import TrainingConfig
from equipot.training.optimizer import shape, transformation
from equipot.training.step import Rates, make_train_step, mesh_of, place, replicate, start


def prepare(job: dict[str, Any]) -> Ready:
    item = ITEMS[job["item"]]
    structures = [Structure.from_ase(atoms) for atoms in load(job["system"])]
    if item.training:
        structures = [s.replace(cell=np.zeros((3, 3)), pbc=np.zeros(3, bool)) for s in structures]
    graph = jax.device_put(pad(structures, CUTOFF))
    potential = potential_of(item, job.get("model"), structures, graph)
    pairs = int(graph.slot_mask.sum())
    facts = {"parameters": sum(x.size for x in jax.tree.leaves(potential.variables["params"]))}
    if item.training:
        return Ready(training(potential, structures), pairs, facts=facts)
    if job["program"] == SPLINES:
        potential = compress(potential).potential
    run = jax.jit(evaluate, static_argnames="want")

    def compute() -> Any:
        return jax.block_until_ready(run(potential, graph, want=("energy", "forces", "stress")))

    def answer() -> dict[str, Any]:
        out = compute()
        return {"energy": out.interaction.tolist(), "forces": out.forces.tolist()}

    return Ready(compute, pairs, answer, facts)


def potential_of(item: Item, model: str | None, structures: list[Structure], graph: Any) -> Potential:
    """The shared weights where there are any, else random ones."""
    if model is not None:
        return import_checkpoint(model)[0].astype("float32")
    elements = tuple(sorted({int(z) for s in structures for z in s.numbers}))
    radial = Radial(mlp=(64, 64), envelope=PolynomialEnvelope(6))
    term = NequIP(cutoff=CUTOFF, elements=elements, channels=item.network["channels"], parity=NaturalParity(), radial=radial)
    metadata = Metadata(atomic_energies=tuple((z, 0.0) for z in elements))
    mean = float(graph.slot_mask.sum() / graph.node_mask.sum())
    return fresh(term, graph, jax.random.key(0), metadata, scale=1.0, avg_num_neighbors=mean)


def training(potential: Potential, structures: list[Structure]) -> Any:
    """The step of ``equipot train`` with its defaults: Huber losses, AMSGrad, clipping and a moving average."""
    labelled = [s.replace(energy=0.0, forces=np.zeros_like(s.positions)) for s in structures]
    settings, found, mesh = TrainingConfig(), find(labelled, CUTOFF), mesh_of(1)
    free = dict(potential.metadata.atomic_energies)
    loader = plan_training(found, free, len(labelled), 1, np.dtype(np.float32), 0)
    batch = place(mesh, loader.build(loader.shards(np.arange(len(labelled)))))
    curve = shape(settings.schedule, 1000)
    rates = Rates(transformation(settings.optimizer, settings.clip), lambda s: 1e-3 * curve(s), settings.ema or 0.0, 1000)
    step = make_train_step(potential, settings.loss, settings.loss.wants(found.labels), rates, mesh)
    state = replicate(mesh, start(potential.variables["params"], rates))

    def call() -> Any:
        nonlocal state
        # The state that goes in is given up, so that each step takes the one before.
        state, report = step(state, batch, 1.0)
        jax.block_until_ready((state, report))
        assert report["finite"], "a training step was not finite"

    return call


if __name__ == "__main__":
    serve(prepare, ("equipot", "jax", "e3nn-jax"))
