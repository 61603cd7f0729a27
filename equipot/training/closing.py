"""End of a run: choose between the best potential and the last one, and solve in closed form for the last layer or, after
fine-tuning, for the constants of the elements."""

from __future__ import annotations

import json
from collections.abc import Sequence

import jax
import numpy as np

from equipot import eqp
from equipot.data.split import Chain, Scaled, Subset, evenly
from equipot.potential import Potential
from equipot.quantities import ENERGY, FORCES, HESSIAN
from equipot.structure import Structure
from equipot.training.beginning import Beginning
from equipot.training.config import FineTune
from equipot.training.errors import predict, write_json
from equipot.training.loop import TrainingRun, batches_in_order, save_best, save_potential, validate
from equipot.training.loss import Loss
from equipot.training.progress import Cursor
from equipot.training.refit import LEAST_ERROR, LOSS_MARGIN, MARGIN, can_refit, refit
from equipot.training.selection import frame_losses, is_better
from equipot.training.shifts import has_shifts, refit_shifts
from equipot.training.step import State, replicate, with_params

MOST_REPLAYED = 1000
"""Largest number of replayed frames to which constants are fitted."""
LAST, BEST, CLOSED = "of the last step", "with the lowest validation loss", "of the last whole epoch"
"""Which potential best.eqp is."""


def conclude(run: TrainingRun, state: State, cursor: Cursor, beginning: Beginning, ending: str) -> str:
    """Decide which potential of a run becomes best.eqp, and refit it, as the config says.

    Where a refit was done, refit.json says so, and a finished run that is resumed does not do it twice.

    Args:
        run: Run whose steps are done.
        state: State after the last step.
        cursor: Cursor after the last step.
        beginning: What the run began from; the labels of its frames are those that it has learned.
        ending: Reason of the end, a key of ``run.ENDINGS``.

    Returns:
        Which potential best.eqp is, for the report.
    """
    path, best = run.out / "refit.json", eqp.load(run.best_path)
    record = json.loads(path.read_text()) if path.exists() else {"result (SHA-256)": None}
    if record["result (SHA-256)"] in (eqp.sha256_of(best), eqp.sha256_of(best.correction)):
        return str(record.get("potential", BEST))
    kept = LAST if is_last(run, state) else CLOSED if run.valid is None else BEST
    if ending == "finished" and kept == BEST and slows(run, cursor):
        kept = take_last(run, state, beginning)
    if run.config.refit and ending != "time limit":
        refit_best(run, beginning, kept)
    return kept


def slows(run: TrainingRun, cursor: Cursor) -> bool:
    """Whether the learning rate fell towards the end of the run, so that its last potential is the least noisy."""
    steps = run.descent.steps
    return cursor.factor * float(run.descent.rate(steps - 1)) < 0.5 * float(run.descent.rate(steps // 2))


def saved(run: TrainingRun) -> Potential:
    """Read best.eqp, for comparison with labels from which a method was subtracted."""
    return eqp.load(run.best_path).correction


def last(run: TrainingRun, state: State) -> Potential:
    """Return the potential of the last step as ``saved`` returns that of best.eqp."""
    trained = with_params(run.potential, run.stacks.unstack_state(jax.device_get(state.ema)))
    return (trained if run.whole is None else run.whole(trained)).correction


def is_last(run: TrainingRun, state: State) -> bool:
    """Whether best.eqp is the potential of the last step."""
    return eqp.sha256_of(last(run, state)) == eqp.sha256_of(saved(run))


def take_last(run: TrainingRun, state: State, beginning: Beginning) -> str:
    """Give best.eqp the potential of the last step, unless validation says that the one it has is better; tell which."""
    frames, loss = beginning.dataset.valid, Loss(run.config.loss)
    both = saved(run), last(run, state)
    found = [predict(each, frames, run.config.valid_batch_size, run.mesh.size) for each in both]
    losses = [frame_losses(loss, run.valid_wants, frames, each) for each in found]
    if is_better(*losses):
        return BEST
    save_best(run, state)
    before, after = (float(each.sum()) for each in losses)
    told = f"{len(frames)} validation frame(s) do not tell it (loss {after:.4g}) from the best one ({before:.4g})"
    run.console.say(f"the potential of the last step is kept: {told}")
    return LAST


def refit_best(run: TrainingRun, beginning: Beginning, kept: str) -> None:
    """Give best.eqp of a run the last linear layer that fits the training frames best, after fine-tuning only the constants of
    the elements, unless validation errors say that it harms.

    Where it fails, what was trained is kept, and the reason is said. What is done is written to refit.json, with what the
    potential is (``kept``).
    """
    tuned, frames = beginning.base is not None, weighted_as_drawn(beginning)
    trained = with_params(run.potential, saved(run).params)
    weights = Loss(run.config.loss).weights(run.wants, 1.0)
    counted = [row for row in (ENERGY, FORCES) if float(weights.get(row.name, 0.0)) > 0]
    # What a config keeps frozen keeps its energies, too.
    whole = isinstance(beginning.config.model, FineTune) and beginning.config.model.train == "all"
    # Least squares of energies and forces would forget Hessians; a constant does not change them.
    solvable = can_refit(trained) and counted and HESSIAN not in run.wants
    ready = whole and has_shifts(trained) and ENERGY in counted if tuned else solvable
    if not ready or run.valid is None or run.whole is not None:
        return
    at_once = (run.config.valid_batch_size, run.mesh.size)
    try:
        if tuned:
            result, said = refit_shifts(trained, frames, beginning.dataset.valid, *at_once)
        else:
            result, said = compare(run, trained, refit(trained, frames, counted, *at_once))
    except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        result, said = trained, f"left as trained: {error}"
    what = "constants of the elements" if tuned else "last layer"
    # A run that is killed between the two finds another result than its record names, and does it again.
    write_json({"potential": kept, what: said, "result (SHA-256)": eqp.sha256_of(result.correction)}, run.out / "refit.json")
    if result is not trained:
        save_potential(run, result)
    run.console.say(f"{what}: {said}")


def weighted_as_drawn(beginning: Beginning) -> Sequence[Structure]:
    """Return the training frames; of those that are replayed at most ``MOST_REPLAYED``, weighted by their share in an epoch."""
    frames, replay = beginning.dataset.train, beginning.replay
    if replay is None:
        return frames
    some = evenly(replay.pool, MOST_REPLAYED)
    new, replayed = Subset(frames, np.arange(beginning.count)), Subset(frames, beginning.count + some)
    return Chain((new, Scaled(replayed, replay.drawn / len(some))))


def compare(run: TrainingRun, trained: Potential, refitted: Potential) -> tuple[Potential, str]:
    """Choose between two potentials by their validation errors of the quantities in the loss; say why."""
    assert run.valid is not None
    validation = batches_in_order(run.valid, run.mesh)
    params = [replicate(run.mesh, run.stacks.stack(jax.device_get(potential.params))) for potential in (trained, refitted)]
    errors = [validate(run, each, validation) for each in params]
    (loss, before), (refitted_loss, after) = errors
    weights = Loss(run.config.loss).weights(run.valid_wants, 1.0)
    least = {
        row.error_name.format(kind): LEAST_ERROR * row.scale
        for row in run.valid_wants
        if float(weights[row.name]) > 0
        for kind in ("mae", "rmse")
    }
    worse = [
        f"{name} {before[name]:.3g} -> {after[name]:.3g}"
        for name in least
        if name in before and not after[name] <= max(MARGIN * before[name], least[name])
    ]
    if not refitted_loss <= LOSS_MARGIN * loss:
        worse.append(f"loss {loss:.4g} -> {refitted_loss:.4g}")
    if worse:
        return trained, f"left as trained: validation says {', '.join(worse)}"
    return refitted, f"refitted, validation loss {loss:.4g} -> {refitted_loss:.4g}"
