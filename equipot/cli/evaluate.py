"""``equipot evaluate MODEL DATA``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from equipot.cli.runtime import cores, prepare


def execute(args: argparse.Namespace) -> None:
    """Print the error table and a summary of deviations; with --json write both, with --out predictions, plots and a page."""
    places = {"json": args.json, "out": args.out}
    evaluate_file(
        args.model, args.data, args.overrides, **places, dtype=args.dtype, batch_size=args.batch_size, method=args.method
    )


def evaluate_file(
    model: str | Path,
    data: str,
    overrides: Sequence[str],
    json: Path | None,
    out: Path | None,
    dtype: str | None,
    batch_size: int | None = None,
    method: str | None = None,
) -> dict[str, float]:
    """Compute, print and return the error table of a potential on labelled data; with means of deviations if it has any."""
    from equipot import config, published
    from equipot.data.checks.frames import check
    from equipot.data.method import runner_of
    from equipot.data.read import Reading, gather
    from equipot.data.stats import is_isolated_atom
    from equipot.files import check_writable
    from equipot.pages import try_to_write_page
    from equipot.quantities import HESSIAN
    from equipot.training.errors import evaluate_set, predicted_quantities, table_text, write_json, write_predictions
    from equipot.training.page import evaluation_blocks
    from equipot.training.report import parity
    from equipot.uncertainty.summary import summary

    if json is not None:
        check_writable(json)
    if out is not None:
        check_writable(out / "predictions.xyz")
    settings = config.build(Reading, {}, overrides=overrides)
    prepare(dtype or "float32", cores())
    potential = published.load(model, dtype)
    runner = runner_of(potential.metadata.subtracted, method)
    frames, dropped = gather(data, settings.also(potential.provides, potential.term.needs))
    # Isolated atoms are where energies are counted from, not something to predict.
    structures = [frame for frame in frames if not is_isolated_atom(frame)] or list(frames)
    report = check({"data": structures}, potential.cutoff, settings.max_force, settings.min_distance, potential.term.needs)
    report.judged(settings.checks).raise_errors()
    table, predictions = evaluate_set(potential, structures, batch_size, runner=runner, estimates=potential.deviations)
    lines, numbers = summary(potential, structures, predictions)
    table |= numbers
    left_out = len(frames) - len(structures)
    for problem in dropped:
        print(f"warning: {problem}")
    said = f"{model} on {data}: {len(structures)} frames" + (f", {left_out} isolated atoms left out" if left_out else "")
    quantities = (*predicted_quantities(potential), HESSIAN)
    print(said)
    print("\n".join([table_text({Path(data).name: table}, quantities), *lines]))
    if json is not None:
        write_json(table, json)
    if out is not None:
        write_predictions(structures, predictions, out / "predictions.xyz")
        parity(structures, predictions, out / "parity.png")
        remarks = [said, *map(str, dropped), *lines]
        blocks = lambda: evaluation_blocks(structures, predictions, {Path(data).name: table}, quantities, remarks)
        try_to_write_page(out / "evaluate.html", f"Errors of {Path(model).name}", blocks, print)
        print(f"predictions and plots: {out}")
    return table
