"""Check, before the first step of a run, that its steps fit into memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from equipot import memory
from equipot.data.draw import Shards, sorted_batches
from equipot.data.loader import Loader
from equipot.data.plan import cost
from equipot.training.loop import TrainingRun
from equipot.training.step import CompiledStep, State, place

GIB = 2**30


def check_steps(run: TrainingRun, state: State) -> None:
    """Compile the steps of training and of validation for their largest batches, and compare their memory with the free memory.

    Raises:
        ValueError: a step does not fit into memory; the message names a batch size that fits.
    """
    first = [run.train.shards(batch) for batch in run.train.epoch(run.seed, 0)]
    check_step("batch_size", run, run.train_step, state, run.train, first)
    if run.valid is not None and run.valid_step is not None:
        passes = [run.valid.shards(batch) for batch in sorted_batches(run.valid.frames.sizes, run.valid.batch_size)]
        check_step("valid_batch_size", run, run.valid_step, state.ema, run.valid, passes)


def check_step(key: str, run: TrainingRun, step: CompiledStep, state: Any, loader: Loader, batches: list[Shards]) -> None:
    """Compile one step for its largest batch and compare its memory with the free memory.

    Args:
        key: Name of the setting with the batch size.
        run: Training run.
        step: Step to check.
        state: Argument of the step before the batch.
        loader: Loader of the batches.
        batches: Batches of the first epoch.

    Raises:
        ValueError: the step does not fit into memory.
    """
    largest = max(batches, key=lambda shards: cost(*loader.shape(shards)[:2]))
    device = run.mesh.devices.flat[0]
    # Devices of a CPU share the memory of the host.
    share = run.mesh.size if device.platform == "cpu" else 1
    available = memory.available(device)
    needed = share * step.compile(state, place(run.mesh, loader.build(largest)))
    if available is None or needed <= available:
        return
    shape, sizes = loader.shape(largest), loader.frames.sizes
    room = shape.atoms * available / needed
    shorter = loader.frames.cutoff * np.cbrt(available / needed)
    most = run.mesh.size * int((np.cumsum(np.sort(sizes[:, 0])[::-1]) <= room).sum())
    fits = f"training.{key}: {most} would fit" if most else f"not even a training.{key} of 1 for each device fits"
    wide = " or float32" if np.dtype(loader.dtype) == np.float64 else ""
    raise ValueError(
        f"training.{key} {loader.batch_size}: a step of {shape.atoms} atoms with up to {shape.slots} neighbours each needs "
        f"about {needed / GIB:.3g} GiB, but {available / GIB:.3g} GiB are free; {fits}; a cutoff below "
        f"{loader.frames.cutoff:g} Å (in a crystal, {shorter:.1f} Å), fewer channels{wide} take less"
    )
