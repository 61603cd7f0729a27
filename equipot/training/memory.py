"""Compile the steps of a run before they are taken, and check that they fit into memory."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import numpy as np

from equipot import memory
from equipot.data.batch import Shape
from equipot.data.draw import Shards, sorted_batches
from equipot.data.loader import Loader
from equipot.data.plan import cost
from equipot.training.loop import TrainingRun
from equipot.training.step import CompiledStep, State, place

GIB = 2**30


def compile_steps(run: TrainingRun, state: State, pool: Executor) -> None:
    """Compile the steps of training and of validation for all their shapes, and compare their memory with the free memory.

    Returns as soon as the largest step of training is compiled; ``pool`` compiles the others while the run trains. A step of
    validation that does not fit raises its error when it is taken.

    Raises:
        ValueError: a step of training does not fit into memory; the message names a batch size that fits.
    """
    first = [run.train.shards(batch) for batch in run.train.epoch(run.seed, 0)]
    largest, *_ = start("batch_size", run, run.train_step, state, run.train, first, pool)
    if run.valid is not None and run.valid_step is not None:
        passes = [run.valid.shards(batch) for batch in sorted_batches(run.valid.frames.sizes, run.valid.batch_size)]
        start("valid_batch_size", run, run.valid_step, state.ema, run.valid, passes, pool)
    largest.result()


def start(
    key: str, run: TrainingRun, step: CompiledStep, state: Any, loader: Loader, batches: list[Shards], pool: Executor
) -> list[Future]:
    """Start to compile one step for each shape of its batches, the largest first.

    Args:
        key: Name of the setting with the batch size.
        run: Training run.
        step: Step.
        state: Argument of the step before the batch.
        loader: Loader of the batches.
        batches: Batches of the first epoch.
        pool: Threads that compile.
    """
    device = run.mesh.devices.flat[0]
    # Devices of a CPU share the memory of the host.
    share = run.mesh.size if device.platform == "cpu" else 1
    available = memory.available(device)
    examples = {loader.shape(shards): shards for shards in batches}
    started = []
    for shape in sorted(examples, key=lambda shape: cost(*shape[:2]), reverse=True):
        check = partial(check_memory, key, run.mesh.size, loader, shape, share, available)
        started.append(step.compile(state, place(run.mesh, loader.build(examples[shape])), pool, check))
    return started


def check_memory(key: str, devices: int, loader: Loader, shape: Shape, share: int, available: int | None, each: int) -> None:
    """Compare the memory of a step with the free memory.

    Args:
        key: Name of the setting with the batch size.
        devices: Number of devices.
        loader: Loader of the batches.
        shape: Shape of a batch on one device.
        share: Number of devices that share the free memory.
        available: Free memory (bytes); None if unknown.
        each: Memory (bytes) that the step needs on each device.

    Raises:
        ValueError: the step does not fit into memory.
    """
    needed = share * each
    if available is None or needed <= available:
        return
    sizes = loader.frames.sizes
    room = shape.atoms * available / needed
    shorter = loader.frames.cutoff * np.cbrt(available / needed)
    most = devices * int((np.cumsum(np.sort(sizes[:, 0])[::-1]) <= room).sum())
    fits = f"training.{key}: {most} would fit" if most else f"not even a training.{key} of 1 for each device fits"
    wide = " or float32" if np.dtype(loader.dtype) == np.float64 else ""
    raise ValueError(
        f"training.{key} {loader.batch_size}: a step of {shape.atoms} atoms with up to {shape.slots} neighbours each needs "
        f"about {needed / GIB:.3g} GiB, but {available / GIB:.3g} GiB are free; {fits}; a cutoff below "
        f"{loader.frames.cutoff:g} Å (in a crystal, {shorter:.1f} Å), fewer channels{wide} take less"
    )
