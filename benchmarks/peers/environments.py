"""A virtual environment for each program, and how its worker is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TORCH = "torch==2.13.0"
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "vtorch": (TORCH, "mace-torch==0.3.16", "e3nn==0.4.4", "symmetrix-xl==0.1.1", "matplotlib", "matscipy"),
    "vnequip": (TORCH, "nequip==0.19.1", "matscipy"),
    "vmlip": ("mlip==0.2.5", "matscipy"),
    "vnequix": ("nequix==0.4.5", "matscipy"),
    "vsym": ("symmetrix-xl==0.1.1", "ase", "matscipy"),
}
"""What is installed in each; symmetrix reads a model of mace-torch where that is installed."""
WORKERS = {
    "mace-torch": ("vtorch", "mace_worker"), "mlip": ("vmlip", "mlip_worker"), "symmetrix": ("vsym", "symmetrix_worker"),
    "nequip": ("vnequip", "nequip_worker"), "nequix": ("vnequix", "nequix_worker"),
}  # fmt: skip
"""Environment and module of each program but equipot."""


def python_of(home: Path, environment: str) -> str:
    """Interpreter of an environment.

    Raises:
        FileNotFoundError: it is not installed.
    """
    path = home.absolute() / environment / "bin" / "python"
    if not path.exists():
        raise FileNotFoundError(f"{path}: not installed; `python -m benchmarks peers --home {home} --install` does that")
    return str(path)


def command(home: Path, program: str) -> list[str]:
    """Starts the worker of a program, from the root of the repository."""
    if program.startswith("equipot"):
        return [sys.executable, "-m", "benchmarks.peers.equipot_worker"]
    environment, module = WORKERS[program]
    return [python_of(home, environment), "-m", f"benchmarks.peers.{module}"]


def install(home: Path, environments: Mapping[str, Sequence[str]] = ENVIRONMENTS) -> None:
    """Makes the environments with the interpreter that runs this; what is installed already is left as it is."""
    for name, packages in environments.items():
        folder = home.absolute() / name
        if not (folder / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        print(f"{name}: {' '.join(packages)}", file=sys.stderr, flush=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages], check=True)
