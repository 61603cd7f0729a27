"""A measurement in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import record


def in_own_process(
    name: str,
    arguments: Mapping[str, Any],
    cores: int | None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """What ``python -m benchmarks case`` says.

    Raises:
        CalledProcessError: it failed, as it says on stderr.
        TimeoutExpired: it took more than ``timeout`` seconds.
    """
    print(f"{name} {dict(arguments)} ...", file=sys.stderr, flush=True)
    command: Sequence[str] = [sys.executable, "-m", "benchmarks", "case", name, json.dumps(arguments)]
    command = [*command, *(["--cores", str(cores)] if cores else [])]
    # numpy's threads are made before a process confines itself, and would compute on the other cores.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cores)) if cores else {}
    # Nothing of JAX is loaded here: a child's peak memory begins with that of its parent.
    done = subprocess.run(
        command, cwd=record.ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout,
        env={**os.environ, **threads, **(environment or {})},
    )  # fmt: skip
    return {"case": name, "arguments": arguments} | json.loads(done.stdout.splitlines()[-1])


def run(name: str, arguments: Mapping[str, Any], cores: int | None) -> None:
    """The same from inside: measures here and prints the result."""
    if cores:
        # Before JAX counts them.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    from benchmarks.cases import CASES
    from benchmarks.coulomb.charged import reference
    from benchmarks.coulomb.share import share
    from benchmarks.crystal import crystal
    from benchmarks.relaxation_cases import relaxation
    from benchmarks.roofline import roofline
    from equipot.cli.runtime import cores as used

    others = {
        "crystal": crystal, "roofline": roofline, "coulomb_reference": reference, "coulomb_share": share,
        "relaxation": relaxation,
    }  # fmt: skip
    result = (CASES | others)[name](**arguments)
    print(json.dumps({"cores_used": used()} | result))
