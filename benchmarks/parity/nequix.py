"""Energies, forces and stresses of Nequix files by the package nequix, in double precision; run where that is installed:

    python benchmarks/parity/nequix.py MODEL.nqx OUT.json [--only NAME ...]

It imports nothing of equipot.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This file has the name of the package that it measures.
here = str(Path(__file__).parent)
sys.path = [*(path for path in sys.path if path != here), here]

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import structures  # noqa: E402
from matscipy.neighbours import neighbour_list  # noqa: E402
from nequix.model import load_model  # noqa: E402


def keep_constants() -> None:
    """e3nn-jax estimates the normalisation of activations in the precision at hand: that of single precision made the model."""
    from e3nn_jax._src import activation

    original = activation.normalize_function

    def normalize(phi):
        with jax.ensure_compile_time_eval(), jax.enable_x64(False):
            constant = float(original(phi)(jnp.float32(1.0)) / phi(jnp.float32(1.0)))
        return lambda x: phi(x) * constant

    activation.normalize_function = normalize


def evaluate(model: eqx.Module, config: dict, records: list[dict]) -> list[dict]:
    """The records with what the model says, by its derivatives with respect to positions and strain; all in one graph."""
    systems = [structures.as_atoms(record) for record in records]
    pairs, offset = [], 0
    for k, atoms in enumerate(systems):
        if not atoms.pbc.any():
            atoms.set_cell(np.eye(3) * 50)
        i, j, shift = neighbour_list("ijS", atoms, config["cutoff"])
        pairs.append((i + offset, j + offset, shift, np.full(len(i), k)))
        offset += len(atoms)
    i, j, shift, system = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    owner = np.repeat(np.arange(len(systems)), [len(atoms) for atoms in systems])
    numbers = np.concatenate([atoms.numbers for atoms in systems])
    species = jnp.array([config["atomic_numbers"].index(z) for z in numbers])
    cells = jnp.array([atoms.cell[:] for atoms in systems])
    positions = jnp.array(np.concatenate([atoms.positions for atoms in systems]))

    def energies(positions: jax.Array, strain: jax.Array) -> tuple[jax.Array, jax.Array]:
        deform = jnp.eye(3) + (strain + jnp.swapaxes(strain, 1, 2)) / 2
        r = jnp.einsum("ni,nij->nj", positions, deform[owner])
        images = jnp.einsum("ei,eij->ej", jnp.array(shift, float), (cells @ deform)[system])
        per_system = jax.ops.segment_sum(model.node_energies(r[j] - r[i] + images, species, j, i)[:, 0], owner, len(systems))
        return jnp.sum(per_system), per_system

    strain = jnp.zeros((len(systems), 3, 3))
    (_, energy), (slope, virial) = jax.jit(jax.value_and_grad(energies, (0, 1), has_aux=True))(positions, strain)
    stress = np.asarray(virial) / np.abs(np.linalg.det(cells))[:, None, None]
    return [
        {
            **record,
            "energy": float(energy[k]),
            "forces": (-slope[owner == k]).tolist(),
            "stress": stress[k].tolist() if all(record["pbc"]) else None,
        }
        for k, record in enumerate(records)
    ]


def main() -> None:
    args = structures.arguments()
    model, config = load_model(str(args.checkpoint))
    jax.config.update("jax_enable_x64", True)
    keep_constants()
    model = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if eqx.is_inexact_array(x) else x, model)
    made = structures.structures()
    chosen = {name: made[name] for name in args.only or made}
    records = evaluate(model, config, [structures.as_record(name, atoms) for name, atoms in chosen.items()])
    structures.write(args.out, structures.provenance(__file__, args.checkpoint, ("nequix", "jax", "e3nn-jax")), records)


if __name__ == "__main__":
    main()
