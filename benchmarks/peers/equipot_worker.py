"""equipot in single precision, as it is or compressed."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from benchmarks.cases import train_step
from benchmarks.peers.items import CUTOFF, ITEMS, SPLINES, Item
from benchmarks.peers.systems import load
from benchmarks.peers.worker import Ready, serve
from equipot import import_checkpoint
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.compress import compress
from equipot.models.nequip import NaturalParity, NequIP
from equipot.nn.radial import PolynomialEnvelope, Radial
from equipot.potential import Potential, evaluate
from equipot.structure import Structure


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
        labelled = [s.replace(energy=0.0, forces=np.zeros_like(s.positions)) for s in structures]
        step = train_step(potential, labelled, dict(potential.metadata.atomic_energies))

        def train() -> None:
            assert jax.block_until_ready(step())["finite"], "a training step was not finite"

        return Ready(train, pairs, facts=facts)
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


if __name__ == "__main__":
    serve(prepare, ("equipot", "jax", "e3nn-jax"))
