"""Write the files of this folder: potentials and training runs in format 1, with what they predict in double precision.

Made once, with the package of commit 393f228, the last to write format 1: ``PYTHONPATH=CHECKOUT python make.py``.
"""

import json
import shutil
from pathlib import Path

import ase.io
import jax
import numpy as np
from ase.build import molecule

import equipot
from equipot import config, models
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models.compress import compress
from equipot.models.heads import join
from equipot.structure import Structure
from equipot.training import TrainConfig, train

HERE = Path(__file__).parent
ENERGIES = {1: -13.6, 8: -432.1}
MACE = {"kind": "MACE", "cutoff": 3.0, "channels": 2, "l_max": 1, "correlation": 2, "radial": {"mlp": [3]}, "readout": [3]}
NEQUIP = {"kind": "NequIP", "cutoff": 3.0, "channels": 2, "l_max": 1, "layers": 2, "radial": {"mlp": [3]}, "readout": 2}
AGNESI = {"mlp": [3], "transform": "Agnesi", "place": "OnWeights"}
RICH_MACE = MACE | {"repulsion": {}, "radial": AGNESI, "first": "NonLinear", "others": "NonLinear", "readout_bias": True}
RICH_NEQUIP = NEQUIP | {"normalization": "Density", "layer_norm": {}, "bias": True, "parity": "NaturalParity"}
FRAMES = ase.io.read(HERE / "train.xyz", ":4") if (HERE / "train.xyz").exists() else []
TRAINING = {
    "epochs": 3, "batch_size": 4, "ema": 0.9, "devices": 1,
    "schedule": {"kind": "Plateau"}, "checkpoint": {"keep": 1, "seconds": 1e6},
}  # fmt: skip


def frames(count, seed, depth):
    """Structures of water in a small cell, displaced, with labels of harmonic springs between all atoms."""
    rng, out = np.random.default_rng(seed), []
    for k in range(count):
        atoms = molecule("H2O", cell=[4.5, 4.0, 4.2], pbc=k % 2 == 0)
        atoms.positions = np.round(atoms.positions + rng.normal(0, 0.08, (3, 3)), 6)
        d = atoms.positions[:, None] - atoms.positions
        r = np.linalg.norm(d, axis=-1) + np.eye(3)
        energy = depth * np.sum((r - 1.2) ** 2 * (1 - np.eye(3))) + sum(ENERGIES[z] for z in atoms.numbers)
        forces = -4 * depth * np.sum(((r - 1.2) / r * (1 - np.eye(3)))[..., None] * d, axis=1)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces
        out.append(atoms)
    return out


def potential(settings, key, level):
    term = config.build(equipot.Term, settings | {"elements": [1, 8]})
    metadata = Metadata(tuple((z, e + 7 * key) for z, e in ENERGIES.items()), level)
    graph = pad([Structure.from_ase(atoms) for atoms in FRAMES], 3.0)
    return models.fresh(term, graph, jax.random.key(key), metadata, scale=0.5 + key, shift=[0.25, key], avg_num_neighbors=2.0)


def other(base):
    """The same network with other readouts, scale and shift, as a second level of theory."""
    moved = lambda path, x: 1.3 * x + 0.1 if any(w in str(path) for w in ("readout", "scale", "shift")) else x
    return base.replace(
        variables=jax.tree_util.tree_map_with_path(moved, base.variables),
        metadata=Metadata(tuple((z, 2 * e) for z, e in ENERGIES.items()), "other"),
    )


def predictions(file, head=None):
    found = equipot.load(HERE / file if head is None else f"{HERE / file}@{head}", "float64")
    out = [equipot.evaluate(found, atoms) for atoms in FRAMES]
    return [{"energy": float(o.energy[0]), "forces": o.forces.tolist()} for o in out]


def run(name, data, model):
    """A run stopped after its first step, and what it would have become."""
    settings = {"data": data, "model": model, "training": TRAINING, "dtype": "float64", "seed": 3}
    build = lambda **changes: config.build(TrainConfig, settings | {"training": TRAINING | changes})
    whole = HERE / f"{name}-whole"
    for out in (HERE / name, whole):
        shutil.rmtree(out, ignore_errors=True)
    train(build(max_minutes=1e-9), HERE / name, progress=None)
    shutil.copytree(HERE / name, whole)
    train(build(), whole, resume=True, progress=None)
    found = predictions(f"{whole.name}/best.eqp", "low" if "heads" in data else None)
    shutil.rmtree(whole)
    for path in (HERE / name).iterdir():
        if path.name not in ("checkpoints", "metrics.jsonl", "best.eqp"):
            path.unlink()
    return {"settings": settings, "predictions": found}


if __name__ == "__main__":
    for level, depth in (("train", 1.0), ("other", -0.5)):
        ase.io.write(HERE / f"{level}.xyz", frames(12, 1, depth))
    FRAMES = ase.io.read(HERE / "train.xyz", ":4")
    single = {"mace": RICH_MACE, "nequip": RICH_NEQUIP}
    for name, settings in single.items():
        equipot.save(potential(settings, 1, "PBE"), HERE / f"{name}.eqp")
    equipot.save(compress(potential(MACE, 2, "PBE"), 8).potential, HERE / "compressed.eqp")
    for name, settings in (("mace", MACE), ("nequip", NEQUIP)):
        base = potential(settings, 3, "PBE")
        equipot.save(join({"low": base, "high": other(base)}), HERE / f"{name}-heads.eqp")
    expected = {name: {"": predictions(f"{name}.eqp")} for name in (*single, "compressed")}
    expected |= {f"{name}-heads": {h: predictions(f"{name}-heads.eqp", h) for h in ("low", "high")} for name in single}
    source = lambda level: {"train": f"{level}.xyz", "valid": 4, "atomic_energies": {"H": -13.6, "O": -432.1}}
    runs = {
        "run": run("run", source("train"), NEQUIP),
        "run-heads": run("run-heads", {"heads": {"low": source("train"), "high": source("other")}}, MACE),
    }
    (HERE / "expected.json").write_text(json.dumps({"potentials": expected, "runs": runs}) + "\n")
