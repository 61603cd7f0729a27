"""The side that asks: workers that compute one after the other on the same cores, round by round."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record

MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000"
"""Huge pages, and memory that is kept: page faults on fresh buffers would otherwise outweigh every program's arithmetic."""


class Failed(RuntimeError):
    """A worker ended before it had answered."""


class Worker:
    """A program that computes when asked, on the given cores."""

    def __init__(self, command: Sequence[str], job: Mapping[str, Any], cores: Sequence[int], log: Path) -> None:
        self.log = log
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [*command, json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                cwd=record.ROOT, env=environment(len(cores)), preexec_fn=lambda: confine(cores),
            )  # fmt: skip

    def ready(self) -> dict[str, Any]:
        """What the worker says once it is warm."""
        for line in self.process.stdout:
            if line.startswith("ANSWER"):
                return json.loads(line.removeprefix("ANSWER"))
        said = [line.strip() for line in self.log.read_text().splitlines() if re.match(r"\w*(\.\w+)*(Error|Exception)\b", line)]
        raise Failed(f"ended with exit code {self.process.wait()}: {said[-1] if said else 'no message'}"[:200])

    def ask(self, **order: Any) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.ready()

    def close(self) -> None:
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def environment(threads: int) -> dict[str, str]:
    """That of every worker alike; nothing compiled is taken from an earlier run."""
    same = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KOKKOS_NUM_THREADS")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "XLA_FLAGS"))}
    # mace-torch keeps whole models, and e3nn constants, in files that torch loads only if told so.
    torch = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    return inherited | same | torch | {"GLIBC_TUNABLES": MALLOC, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def confine(cores: Sequence[int]) -> None:
    """In the child, before its program starts. Where memory runs out, a worker goes first."""
    os.sched_setaffinity(0, cores)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def start(
    commands: Mapping[str, Sequence[str]], jobs: Mapping[str, Any], cores: Sequence[int], logs: Path
) -> tuple[dict[str, Worker], dict[str, dict[str, Any]], dict[str, str]]:
    """Workers by name, started one after the other, what each said, and why any failed."""
    logs.mkdir(parents=True, exist_ok=True)
    workers, told, failed = {}, {}, {}
    for name, command in commands.items():
        worker = Worker(command, jobs[name], cores, logs / f"{name.replace(' ', '-')}.log")
        try:
            told[name], workers[name] = worker.ready(), worker
        except Failed as error:
            failed[name] = str(error)
    return workers, told, failed


def interleave(workers: Mapping[str, Worker], rounds: int, seconds: float) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Figures of each program over all rounds, and why any failed on the way."""
    calls: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    failed: dict[str, str] = {}
    for k in range(rounds):
        names = list(workers) if k % 2 == 0 else list(workers)[::-1]
        for name in names:
            if name not in failed:
                try:
                    calls[name].append(workers[name].ask(want="time", seconds=seconds))
                except Failed as error:
                    failed[name] = str(error)
    return {name: summary(found) for name, found in calls.items() if name not in failed}, failed


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and least over the calls of all rounds."""
    out: dict[str, Any] = {}
    for kind in ("cpu_ms", "wall_ms"):
        values = [value for one in found for value in one[kind]]
        out |= {kind: statistics.median(values), f"{kind}_min": min(values), "calls": len(values)}
    return out | {"peak_rss_MB": found[-1]["peak_rss_MB"]}
