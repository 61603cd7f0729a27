"""The side of a worker: lines of JSON in, lines of JSON out. Needs the standard library only."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(prepare: Callable[[int], tuple[Callable[[], Any], Callable[[Any], float], int]], versions: dict[str, str]) -> None:
    """``prepare(atoms)`` gives a function that computes energy, forces and stress, one that reads the energy (eV) of its
    answer, and the number of pairs. The first two calls of it are warm-up."""
    for line in sys.stdin:
        order = json.loads(line)
        if "core" in order:
            os.sched_setaffinity(0, {order["core"]})
            answer: dict[str, Any] = versions
        elif "atoms" in order:
            compute, energy, pairs = prepare(order["atoms"])
            compute()
            answer = {"energy": energy(compute()), "pairs": pairs}
        else:
            wall, cpu = time.perf_counter(), time.process_time()
            compute()
            answer = {"cpu_ms": 1e3 * (time.process_time() - cpu), "wall_ms": 1e3 * (time.perf_counter() - wall)}
        print("ANSWER" + json.dumps(answer), flush=True)
