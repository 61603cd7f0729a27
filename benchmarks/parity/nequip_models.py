"""Small models trained for two steps by nequip-train, and what nequip says of some structures; run where nequip is installed:

    python benchmarks/parity/nequip_models.py FOLDER [NAME ...]

For each model it writes ``nequip-NAME.ckpt`` (or a package, ``.nequip.zip``) as nequip writes it and ``nequip-NAME.json``. Of
packages the code is left out, which nothing here reads and which would be most of the file. equipot's tests read some from
tests/convert/data; ``EQUIPOT_NEQUIP_MODELS=FOLDER pytest tests/convert/test_nequip.py -k agrees`` compares all of a folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# A file beside this has the name of the package.
here = str(Path(__file__).parent)
sys.path = [path for path in sys.path if path != here]

import ase.io  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402
from ase.calculators.singlepoint import SinglePointCalculator  # noqa: E402

sys.path.append(here)

import structures  # noqa: E402

ELEMENTS = ["H", "C", "O", "Na", "Mg", "Si", "Cl", "Cu"]
CHOSEN = ("ethanol", "silicon", "sodium chloride", "magnesium oxide, left-handed", "copper, one atom")
SHIFTS = dict(zip(ELEMENTS, [-1.0, -2.0, -3.0, 1.5, 2.5, -5.0, 0.5, -0.7], strict=True))
SCALES = dict(zip(ELEMENTS, [15.0, 16.0, 17.0, 18.0, 19.0, 21.0, 22.0, 23.0], strict=True))
NEIGHBORS = dict(zip(ELEMENTS, [3.1, 4.2, 5.3, 6.4, 7.5, 8.6, 9.7, 12.8], strict=True))
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": ELEMENTS}
SMALL = {
    "_target_": "nequip.model.NequIPGNNModel", "seed": 3, "model_dtype": "float64", "type_names": ELEMENTS, "r_max": 4.0,
    "radial_mlp_width": 5, "avg_num_neighbors": 7.3, "per_type_energy_scales": 17.0, "per_type_energy_shifts": SHIFTS,
}  # fmt: skip
PLAIN = {"_target_": "nequip.train.NequIPLightningModule"}
AVERAGED = {"_target_": "nequip.train.EMALightningModule", "ema_decay": 0.5}
MODELS = {
    # Odd scalars first appear after the third layer, and reach the energy after the sixth.
    "parity": (
        AVERAGED,
        {
            "num_layers": 6, "l_max": 2, "parity": True, "num_features": 2, "pair_potential": ZBL,
            "avg_num_neighbors": 1.0,  # Large messages, or nobody would see the odd scalars.
        },
    ),
    "natural": (
        PLAIN,
        {
            "num_layers": 3, "l_max": 3, "parity": False, "num_features": [4, 3, 2, 2], "type_embed_num_features": 5,
            "model_dtype": "float32", "radial_mlp_depth": 3, "per_type_energy_scales": SCALES, "avg_num_neighbors": NEIGHBORS,
        },
    ),
    "trainable": (
        AVERAGED,
        {
            "num_layers": 2, "l_max": 1, "num_features": 3, "num_bessels": 5, "bessel_trainable": True,
            "polynomial_cutoff_p": 4, "per_type_energy_scales_trainable": True, "per_type_energy_shifts_trainable": True,
            "radial_mlp_depth": 0, "pair_potential": {**ZBL, "polynomial_cutoff_p": 3.0},
        },
    ),
    "preset": (
        PLAIN,
        {
            "_target_": "nequip.model.PresetNequIPGNNModel", "preset": "m", "num_features": [4, 3, 2], "num_layers": 2,
            "per_type_energy_shifts": None, "per_type_energy_scales": None, "avg_num_neighbors": 4,
        },
    ),
    "full": (
        PLAIN,
        {
            "_target_": "nequip.model.FullNequIPGNNModel", "radial_mlp_depth": [2, 2], "radial_mlp_width": [5, 5],
            "irreps_edge_sh": 2, "type_embed_num_features": 4, "feature_irreps_hidden": ["3x0e+3x0o+2x1o+2x1e+2x2e", "3x0e"],
            "learnable_shift": True,
        },
    ),
    "no-self": (PLAIN, {"num_layers": 2, "l_max": 1, "num_features": 3, "convnet_sc": False}),
    "package": (
        AVERAGED,
        {
            "num_layers": 2, "l_max": 2, "num_features": [3, 2, 2], "parity": False, "pair_potential": ZBL,
            "avg_num_neighbors": NEIGHBORS,
        },
    ),
}  # fmt: skip


def write_frames(path: Path) -> None:
    """Something to train on: the structures with labels that mean nothing."""
    made = structures.structures()
    frames = [made[name] for name in CHOSEN]
    for atoms in frames:
        if not atoms.pbc.any():
            atoms.set_cell([20, 20, 20])
        forces = np.random.default_rng(0).normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0 * len(atoms), forces=forces)
    ase.io.write(path, frames)


def config(module: dict, model: dict, folder: Path) -> dict:
    """What nequip-train needs to make ``last.ckpt`` in the folder."""
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": len(CHOSEN)}
    transforms = [
        {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper", "model_type_names": ELEMENTS},
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": 4.0},
    ]
    saver = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": str(folder), "filename": "last"}
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule", "seed": 1, "transforms": transforms,
            "train_file_path": str(folder / "frames.xyz"), "val_file_path": str(folder / "frames.xyz"),
            "train_dataloader": loader, "val_dataloader": loader,
        },
        "trainer": {
            "_target_": "lightning.Trainer", "accelerator": "cpu", "max_epochs": 2, "logger": False,
            "enable_progress_bar": False, "callbacks": [saver], "gradient_clip_val": 0.05,
        },
        "training_module": {
            **module,
            "loss": {"_target_": "nequip.train.EnergyForceLoss", "coeffs": {"total_energy": 1.0, "forces": 1.0}},
            "val_metrics": {"_target_": "nequip.train.EnergyForceMetrics", "coeffs": {"forces_mae": 1.0}},
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "model": {**SMALL, **model},
        },
    }  # fmt: skip


def train(name: str, folder: Path) -> Path:
    """The checkpoint of a model, or its package."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config(*MODELS[name], folder), sort_keys=False), encoding="utf-8")
    write_frames(folder / "frames.xyz")
    run = lambda program, *args: subprocess.run([Path(sys.executable).with_name(program), *args], cwd=folder, check=True)
    run("nequip-train", "-cp", folder, "-cn", "config")
    if name != "package":
        return folder / "last.ckpt"
    run("nequip-package", "build", "last.ckpt", "made.nequip.zip")
    return folder / "made.nequip.zip"


def strip(package: Path) -> None:
    """Leaves the code and the compiled models of a package out."""
    with zipfile.ZipFile(package) as whole:
        parts = {e.filename: whole.read(e) for e in whole.infolist() if not e.filename.endswith((".py", "compile_model.pkl"))}
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as slim:
        for part, content in parts.items():
            slim.writestr(zipfile.ZipInfo(part), content)


def make(name: str, folder: Path) -> None:
    """A checkpoint or package and what nequip says with it."""
    with tempfile.TemporaryDirectory() as scratch:
        made = train(name, Path(scratch))
        target = folder / f"nequip-{name}{''.join(made.suffixes)}"
        target.write_bytes(made.read_bytes())
    reference = [sys.executable, str(Path(here) / "nequip.py"), str(target), str(folder / f"nequip-{name}.json")]
    subprocess.run([*reference, "--only", *CHOSEN], check=True)
    if name == "package":
        strip(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    for each in chosen.names or MODELS:
        make(each, chosen.folder.resolve())
