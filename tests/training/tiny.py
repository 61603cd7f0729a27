"""A potential small enough to train in a test: radial Gaussians by element, summed over neighbours, into a small network.

Run as a script, it trains one: ``tiny.py OUT DEVICES new|resume [key=value ...]``.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.structure import Structure
from equipot.term import Atomic, Term

ENERGIES = {1: -13.6, 8: -432.1}
MUON = {"kind": "Muon", "learning_rate": 0.01}


class Tiny(Term):
    elements: tuple[int, ...] = ()
    width: int = 8

    @nn.compact
    def __call__(self, graph, vectors):
        constant = lambda name, shape: self.variable("constants", name, lambda: jnp.ones(shape)).value
        count = len(self.elements)
        scale, shift, neighbors = constant("scale", (count,)), constant("shift", (count,)), constant("avg_num_neighbors", ())
        species = jnp.sum(graph.numbers[:, None] > jnp.array(self.elements)[None], axis=1).clip(0, count - 1)
        r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        u = jnp.clip(r / self.cutoff, 0, 1)
        envelope = jnp.where(graph.slot_mask, (1 - u**2) ** 3, 0)
        gaussians = jnp.exp(-4 * (r[..., None] - jnp.linspace(0.5, self.cutoff, 6)[None, None]) ** 2) * envelope[..., None]
        kind = jnp.eye(count, dtype=r.dtype)[species]
        density = jnp.einsum("nkg,nks->ngs", gaussians, kind[graph.neighbors]).reshape(len(r), -1) / neighbors
        x = nn.tanh(nn.Dense(self.width)(jnp.concatenate([density, kind], axis=1)))
        net = nn.Dense(1)(nn.tanh(nn.Dense(self.width)(x)))[:, 0]
        return Atomic(jnp.where(graph.node_mask, scale[species] * net + shift[species], 0))


def pair_energy(positions, cell, pbc):
    """Energy, forces and virial of Morse-like pairs within 3.5 Å, by hand."""
    from equipot.neighbors import neighbor_list

    edges = neighbor_list(positions, cell, pbc, 3.5)
    v = positions[edges.neighbors] + edges.shifts @ cell - positions[edges.centers]
    r = np.linalg.norm(v, axis=1)
    smooth, slope = (1 - (r / 3.5) ** 2) ** 3, -6 * r / 3.5**2 * (1 - (r / 3.5) ** 2) ** 2
    e = 0.5 * np.exp(-r) * smooth
    g = (0.5 * np.exp(-r) * slope - e)[:, None] * v / r[:, None]
    forces = np.zeros_like(positions)
    np.add.at(forces, edges.centers, g)
    np.add.at(forces, edges.neighbors, -g)
    return e.sum(), forces, v.T @ g


def structures(count, seed=0, sizes=(2, 5), periodic=True):
    """Random little molecules and cells, of so many atoms from least to most, with labels of a pair potential."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        n = int(rng.integers(sizes[0], sizes[1] + 1))
        pbc = np.full(3, periodic and k % 2 == 0)
        cell = np.eye(3) * 4.0 + rng.normal(0, 0.2, (3, 3)) if pbc.any() else np.zeros((3, 3))
        grid = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * 2.0
        positions = grid[rng.permutation(8)[:n]] + rng.normal(0, 0.2, (n, 3))
        numbers = rng.choice([1, 8], n)
        energy, forces, virial = pair_energy(positions, cell, pbc)
        stress = virial / abs(np.linalg.det(cell)) if pbc.any() else None
        total = energy + sum(ENERGIES[z] for z in numbers)
        labels = {"energy": total, "forces": forces, "stress": stress}
        out.append(Structure(numbers, positions, cell, pbc, labels, source=f"made, frame {k}"))
    return out


def potential(frames, seed=0):
    """A fresh Tiny for the two elements."""
    from equipot.data.batch import pad

    term = Tiny(cutoff=3.5, elements=(1, 8))
    metadata = Metadata(atomic_energies=tuple(ENERGIES.items()))
    return fresh(term, pad(frames[:1], 3.5), jax.random.key(seed), metadata, scale=0.3, avg_num_neighbors=4.0)


def dataset(train=None):
    """Sets for a run; every frame has four atoms, so that one shape does."""
    from equipot.data.read import Dataset

    train = structures(12, 0, (4, 4)) if train is None else train
    return Dataset(train, structures(4, 1, (4, 4)), structures(3, 2, (4, 4)), ENERGIES, "config", "")


def run(out, changes=None, resume=False, train=None, progress=None, model=None):
    """A training run on ``dataset`` with some settings changed."""
    import equipot.training.from_scratch as module
    from equipot import config
    from equipot.data.config import DataConfig
    from equipot.training import TrainConfig
    from equipot.training import train as fit
    from equipot.training.config import TrainingConfig

    settings = {"epochs": 6, "batch_size": 4, "ema": 0.9, "checkpoint": {"seconds": 0}, "optimizer": MUON, **(changes or {})}
    whole = TrainConfig(DataConfig(train="none"), model or Tiny(3.5), config.build(TrainingConfig, settings))
    original = module.load_levels, module.with_levels
    module.load_levels, module.with_levels = lambda *_: {}, lambda *_: dataset(train)
    try:
        return fit(whole, out, resume, progress)
    finally:
        module.load_levels, module.with_levels = original


if __name__ == "__main__":
    import tiny
    import yaml

    jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
    changes = dict((key, yaml.safe_load(value)) for key, value in (text.split("=") for text in sys.argv[4:]))
    tiny.run(sys.argv[1], changes, sys.argv[3] == "resume", progress=sys.stdout)
