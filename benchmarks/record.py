"""Result files: what was measured, on which machine, with which versions, by which command."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import equipot
from equipot.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "e3nn-jax", "jax-md", "optax", "numpy", "vesin")
SOURCES = ("equipot", "benchmarks", ":!benchmarks/results")
"""What a measurement depends on, as git names it."""
SETTINGS = ("JAX_PLATFORMS", "XLA_FLAGS", "GLIBC_TUNABLES", "OMP_NUM_THREADS")
"""Environment variables that change what is measured."""


def beginning() -> dict[str, Any]:
    """What has to be looked at before a measurement: the code may change while it runs."""
    return {"machine": machine(), "versions": versions(), "before": conditions()}


def write(
    path: Path, item: str, command: Sequence[str], results: Sequence[Mapping[str, Any]], began: Mapping[str, Any]
) -> None:
    """Writes a result file. ``began`` is ``beginning()`` as it was before the measurement."""
    record = {
        "item": item,
        "command": " ".join(command),
        **began,
        "after": conditions(),
        "results": list(results),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def conditions() -> dict[str, Any]:
    """What varies: the time, and how busy the machine is with other things."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def machine() -> dict[str, Any]:
    """Processor, memory and the settings around them; accelerators are in each result, as JAX names them."""
    cpu = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_GB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def versions() -> dict[str, str]:
    """Python, the packages that matter, and the commit of this repository (``+`` where files were changed since)."""
    found = {"python": platform.python_version(), "equipot": equipot.__version__, "commit": commit()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def commit() -> str:
    """The commit that is checked out; empty outside a repository."""
    ask = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    try:
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if ask("status", "--porcelain", "--", *SOURCES) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
