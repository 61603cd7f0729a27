"""Solve in closed form at the end of a run: for the last layer, after fine-tuning for the constants of the elements."""

from __future__ import annotations

import json
from collections.abc import Sequence

import jax

from equipot import eqp
from equipot.potential import Potential
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure
from equipot.training.errors import write_json
from equipot.training.loop import TrainingRun, batches_in_order, save_potential, validate
from equipot.training.loss import Loss
from equipot.training.refit import MARGIN, can_refit, refit
from equipot.training.shifts import has_shifts, refit_shifts
from equipot.training.step import replicate, with_params


def refit_best(run: TrainingRun, structures: Sequence[Structure], held_out: Sequence[Structure], tuned: bool) -> None:
    """Give best.eqp of a run the last linear layer that fits the training frames best, after fine-tuning only the constants of
    the elements, unless validation errors say that it harms.

    Where it fails, what was trained is kept, and the reason is said. What is done is written to refit.json, so that a
    finished run that is resumed does not do it twice.

    Args:
        run: Finished run; the labels of ``structures`` are those it has learned.
        structures: Training frames.
        held_out: Validation frames.
        tuned: Whether the run started from another potential.
    """
    record = run.out / "refit.json"
    best = eqp.load(run.best_path).correction
    if record.exists() and json.loads(record.read_text())["result (SHA-256)"] == eqp.sha256_of(best):
        return
    trained = with_params(run.potential, best.params)
    weights = Loss(run.config.loss).weights(run.wants, 1.0)
    counted = [row for row in (ENERGY, FORCES) if float(weights.get(row.name, 0.0)) > 0]
    ready = has_shifts(trained) and ENERGY in counted if tuned else can_refit(trained) and counted
    if not ready or run.valid is None or run.whole is not None:
        return
    at_once = (run.config.valid_batch_size, run.mesh.size)
    try:
        if tuned:
            result, said = refit_shifts(trained, structures, held_out, *at_once)
        else:
            result, said = compare(run, trained, refit(trained, structures, counted, *at_once))
    except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        result, said = trained, f"left as trained: {error}"
    what = "constants of the elements" if tuned else "last layer"
    # A run that is killed between the two finds another result than its record names, and does it again.
    write_json({what: said, "result (SHA-256)": eqp.sha256_of(result)}, record)
    if result is not trained:
        save_potential(run, result)
    run.console.say(f"{what}: {said}")


def compare(run: TrainingRun, trained: Potential, refitted: Potential) -> tuple[Potential, str]:
    """Choose between two potentials by their validation errors; say why."""
    assert run.valid is not None
    validation = batches_in_order(run.valid, run.mesh)
    params = [replicate(run.mesh, run.stacks.stack(jax.device_get(potential.params))) for potential in (trained, refitted)]
    errors = [validate(run, each, validation) for each in params]
    (loss, before), (refitted_loss, after) = errors
    worse = [f"{name} {value:.3g} -> {after[name]:.3g}" for name, value in before.items() if not after[name] <= MARGIN * value]
    if worse:
        return trained, f"left as trained: validation says {', '.join(worse)}"
    return refitted, f"refitted, validation loss {loss:.4g} -> {refitted_loss:.4g}"
