"""The side of a worker: a job as its argument, lines of JSON in, lines of JSON out."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

WARM_UP = 2.0
"""Seconds of calls after the first, in which memory comes to be large enough."""


class Ready(NamedTuple):
    """What a program has made of a job."""

    compute: Callable[[], Any]
    """One call of what is timed, which ends when the work is done."""
    pairs: int
    answer: Callable[[], dict[str, Any]] | None = None
    """Energy (eV) and, where they are compared, forces (eV/Å) as lists."""
    facts: dict[str, Any] = {}


def serve(prepare: Callable[[dict[str, Any]], Ready], packages: Sequence[str]) -> None:
    """Prepares the job, warms up, says so, and then computes whenever it is asked."""
    ready = prepare(json.loads(sys.argv[1]))
    began = time.perf_counter()
    ready.compute()
    first = time.perf_counter() - began
    timed(ready.compute, WARM_UP)
    versions = {name: version(name) for name in packages}
    say({"first_call_s": first, "pairs": ready.pairs, "versions": versions, **ready.facts})
    for line in sys.stdin:
        order = json.loads(line)
        say(ready.answer() if order["want"] == "answer" else timed(ready.compute, order["seconds"]))


def timed(compute: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Processor and wall time (ms) of each call within so many seconds, at least of one; peak memory until then."""
    cpu, wall, end = [], [], time.perf_counter() + seconds
    while not cpu or time.perf_counter() < end:
        began = time.perf_counter(), time.process_time()
        compute()
        cpu.append(1e3 * (time.process_time() - began[1]))
        wall.append(1e3 * (time.perf_counter() - began[0]))
    return {"cpu_ms": cpu, "wall_ms": wall, "peak_rss_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def say(answer: dict[str, Any]) -> None:
    print("ANSWER" + json.dumps(answer), flush=True)
