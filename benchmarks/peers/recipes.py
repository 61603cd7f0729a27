"""Training by the command lines of mace-torch and nequip, with the settings that their documentation gives to a beginner.

mace-torch: the command of its README (128 scalars and vectors, batches of 10, AMSGrad, averaged parameters, the second stage
for energies in the last fifth of the epochs), in single precision, which the README names as the faster one; its length is a
number of epochs, found from two of them. nequip: configs/tutorial.yaml of its repository (four layers of 32 features with
l_max 1, batches of 5, Adam, a rate that falls on plateaus), which takes a length in time.
"""

from __future__ import annotations

import csv
import datetime
import json
import math
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STARTED = re.compile(r"^(\d+-\d+-\d+ \d+:\d+:\d+\.\d+) INFO: Epoch (\d+):.*$", re.MULTILINE)
"""The line of an epoch in the log of mace-torch."""


class Files(NamedTuple):
    """The frames of a task, each as extended XYZ."""

    train: Path
    valid: Path
    test: Path
    atomic_energies: Path | None
    """Isolated atoms; None where the program is to find energies of atoms itself."""
    elements: tuple[str, ...]


def mace(files: Files, minutes: float, folder: Path, program: Path, core: list[str]) -> dict[str, Any]:
    """Train with mace-torch for about ``minutes``; return errors of the test frames (eV, Å) and those of validation over time.

    Args:
        program: Interpreter of the environment with mace-torch.
        core: What is put before each command, such as ``taskset -c 0``.

    Raises:
        ValueError: the time does not suffice for one epoch.
        CalledProcessError: mace-torch failed.
    """
    labelled = {name: relabelled(getattr(files, name), folder / f"{name}.xyz", files) for name in ("train", "valid", "test")}
    times = epochs_of_mace(labelled, 2, folder / "pilot", program, core, files)
    begun, each = times[0], times[1] - times[0]
    epochs = math.floor(1 + (60 * minutes - begun) / each)
    if epochs < 1:
        raise ValueError(f"{minutes:g} minutes are less than one epoch of mace-torch, {begun / 60:.1f} minutes")
    epochs_of_mace(labelled, epochs, folder / "run", program, core, files)
    staged = folder / "run" / "model_stagetwo.model"
    model = staged if staged.exists() else folder / "run" / "model.model"
    words = ["--configs", labelled["test"], "--model", model, "--output", folder / "said.xyz", "--default_dtype", "float32"]
    subprocess.run([*core, program.with_name("mace_eval_configs"), *words, "--device", "cpu"], check=True)
    (lines,) = (folder / "run" / "results").glob("*_train.txt")
    told = [e for e in map(json.loads, lines.read_text().splitlines()) if e["mode"] == "eval" and e["epoch"] is not None]
    spent = times_of(folder / "run")
    curve = [[seconds / 60, e["mae_e_per_atom"], e["mae_f"]] for seconds, e in zip(spent, told, strict=False)]
    return {"epochs": epochs, "errors": errors_of(folder / "said.xyz"), "validation": curve, "spent": spent[-1] / 60}


def epochs_of_mace(
    labelled: Mapping[str, Path], epochs: int, folder: Path, program: Path, core: list[str], files: Files
) -> list[float]:
    """Run ``mace_run_train``; return the seconds from its start to the end of each epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "name": "model", "train_file": labelled["train"], "valid_file": labelled["valid"], "model": "MACE",
        "hidden_irreps": "128x0e + 128x1o",
        "r_max": 5.0, "batch_size": 10, "valid_batch_size": 10, "max_num_epochs": epochs,
        "start_swa": max(1, round(0.8 * epochs)), "ema_decay": 0.99, "default_dtype": "float32", "device": "cpu",
        "error_table": "PerAtomMAE", "work_dir": folder, "seed": 1,
    }  # fmt: skip
    if files.atomic_energies is None:
        settings["E0s"] = "average"  # Else isolated atoms are among the training frames.
    words = [f"--{name}={value}" for name, value in settings.items()] + ["--swa", "--ema", "--amsgrad"]
    with (folder / "output.log").open("w") as log:
        subprocess.run([*core, program.with_name("mace_run_train"), *words], stdout=log, stderr=log, check=True, cwd=folder)
    return times_of(folder)


def times_of(folder: Path) -> list[float]:
    """Seconds from the first line of a log of mace-torch to the end of each of its epochs."""
    text = next((folder / "logs").glob("model_*.log")).read_text()
    moment = lambda words: datetime.datetime.fromisoformat(words)
    first = moment(text[:23])
    return [(moment(found[1]) - first).total_seconds() for found in STARTED.finditer(text)]


def relabelled(source: Path, target: Path, files: Files) -> Path:
    """Write frames with the names of labels that mace-torch expects; training frames with the isolated atoms before them."""
    from ase.io import read, write

    frames = read(source, ":")
    for atoms in frames:
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
    if target.stem == "train" and files.atomic_energies is not None:
        alone = read(files.atomic_energies, ":")
        for atoms in alone:
            energy = atoms.get_potential_energy()
            atoms.info = {"config_type": "IsolatedAtom", "REF_energy": energy}
            atoms.arrays["REF_forces"] = np.zeros((1, 3))
            atoms.calc = None
        frames = [*alone, *frames]
    write(target, frames, format="extxyz")
    return target


def errors_of(said: Path) -> dict[str, float]:
    """Errors (eV, Å) of what ``mace_eval_configs`` wrote beside the labels."""
    from ase.io import read

    frames = read(said, ":")
    sizes = np.array([len(atoms) for atoms in frames])
    energy = np.array([atoms.info["MACE_energy"] - atoms.info["REF_energy"] for atoms in frames])
    forces = np.concatenate([atoms.arrays["MACE_forces"] - atoms.arrays["REF_forces"] for atoms in frames])
    root = lambda x: float(np.sqrt(np.mean(x**2)))
    return {
        "energy_mae": float(np.abs(energy).mean()), "energy_rmse": root(energy),
        "energy_mae_per_atom": float(np.abs(energy / sizes).mean()), "energy_rmse_per_atom": root(energy / sizes),
        "forces_mae": float(np.abs(forces).mean()), "forces_rmse": root(forces),
    }  # fmt: skip


def nequip(files: Files, minutes: float, folder: Path, program: Path, core: list[str]) -> dict[str, Any]:
    """The same with nequip."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(files, minutes, folder), sort_keys=False))
    words = ["-cp", folder, "-cn", "config", f"hydra.run.dir={folder / 'run'}"]
    with (folder / "output.log").open("w") as log:
        subprocess.run([*core, program.with_name("nequip-train"), *words], stdout=log, stderr=log, check=True, cwd=folder)
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    tested = next(row for row in reversed(rows) if row["test0_epoch/forces_mae"])
    errors = {ours: float(tested[f"test0_epoch/{theirs}"]) for theirs, ours in NAMES.items()}
    watched = [f"val0_epoch/{name}" for name in ("per_atom_energy_mae", "forces_mae")]
    seen = [[float(row[name]) for name in watched] for row in rows if row[watched[0]]]
    # Epochs take the same time: the file says no times.
    curve = [[minutes * (k + 1) / len(seen), *values] for k, values in enumerate(seen)]
    return {"epochs": len(seen), "errors": errors, "validation": curve, "spent": minutes}


NAMES = {
    "total_energy_mae": "energy_mae", "total_energy_rmse": "energy_rmse", "per_atom_energy_mae": "energy_mae_per_atom",
    "per_atom_energy_rmse": "energy_rmse_per_atom", "forces_mae": "forces_mae", "forces_rmse": "forces_rmse",
}  # fmt: skip
"""What errors are called by nequip and here."""


def config(files: Files, minutes: float, folder: Path) -> dict[str, Any]:
    """The tutorial of nequip with the frames of a task, for processors, with a length in time."""
    symbols, watched = list(files.elements), "val0_epoch/weighted_sum"
    loader = lambda size, **more: {"_target_": "torch.utils.data.DataLoader", "batch_size": size, **more}
    # Metrics with a weight of null are told and choose nothing.
    metrics = {
        "_target_": "nequip.train.EnergyForceMetrics",
        "coeffs": {**dict.fromkeys(NAMES), "total_energy_mae": 1.0, "forces_mae": 1.0},
    }
    seconds = round(60 * minutes)
    return {
        "run": ["train", "test"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule", "seed": 456,
            "train_file_path": str(files.train), "val_file_path": str(files.valid), "test_file_path": str(files.test),
            "transforms": [
                {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper", "model_type_names": symbols},
                {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": 5.0},
            ],
            "train_dataloader": loader(5, shuffle=True), "val_dataloader": loader(10), "test_dataloader": loader(10),
            "stats_manager": {
                "_target_": "nequip.data.CommonDataStatisticsManager", "dataloader_kwargs": {"batch_size": 10},
                "type_names": symbols,
            },
        },
        "trainer": {
            "_target_": "lightning.Trainer", "accelerator": "cpu", "max_epochs": 100000, "check_val_every_n_epoch": 1,
            "max_time": f"00:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
            "enable_progress_bar": False,
            "logger": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(folder), "name": "", "version": ""},
            "callbacks": [
                {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": watched, "dirpath": str(folder),
                 "filename": "best", "save_last": True},
            ],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule", "ema_decay": 0.999,
            "loss": {"_target_": "nequip.train.EnergyForceLoss", "per_atom_energy": True,
                     "coeffs": {"total_energy": 1.0, "forces": 1.0}},
            "val_metrics": metrics, "train_metrics": metrics, "test_metrics": metrics,
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "lr_scheduler": {
                "scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "factor": 0.6, "patience": 5,
                              "threshold": 0.2, "min_lr": 1e-6},
                "monitor": watched, "interval": "epoch", "frequency": 1,
            },
            "model": {
                "_target_": "nequip.model.NequIPGNNModel", "compile_mode": "eager", "seed": 456, "model_dtype": "float32",
                "type_names": symbols, "r_max": 5.0, "num_bessels": 8, "bessel_trainable": False, "polynomial_cutoff_p": 6,
                "num_layers": 4, "l_max": 1, "parity": True, "num_features": 32, "radial_mlp_depth": 2, "radial_mlp_width": 64,
                "avg_num_neighbors": "${training_data_stats:num_neighbors_mean}",
                "per_type_energy_scales": "${training_data_stats:per_type_forces_rms}",
                "per_type_energy_shifts": shifts(files), "per_type_energy_scales_trainable": False,
                "per_type_energy_shifts_trainable": False,
                "pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": symbols},
            },
        },
    }  # fmt: skip


def shifts(files: Files) -> str | dict[str, float]:
    """Energies of isolated atoms (eV), or the mean energy of an atom in the training frames, by the words for it."""
    if files.atomic_energies is None:
        return "${training_data_stats:per_atom_energy_mean}"
    from ase.io import read

    return {str(atoms.symbols): float(atoms.get_potential_energy()) for atoms in read(files.atomic_energies, ":")}
