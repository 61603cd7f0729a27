"""``equipot uncertainty MODEL [--data FILE] [--calibrate FILE] [--test FILE] [-o NAME.eqp]``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

from equipot.cli.runtime import cores, prepare


def execute(args: argparse.Namespace) -> None:
    """Give a potential an estimate of its uncertainty, write it, and tell how good it is on labelled frames."""
    from equipot import config, eqp, published
    from equipot.data.method import runner_of
    from equipot.files import check_writable
    from equipot.uncertainty import calibrated, committee, fit, with_statistics
    from equipot.uncertainty.config import UncertaintyConfig
    from equipot.uncertainty.prototypes import prototypes

    if args.data is None and not (args.prototypes or args.calibrate or args.test):
        raise ValueError("give structures that the model knows: --data FILE, such as its training set, or --prototypes")
    if args.data is not None and args.prototypes:
        raise ValueError("--data and --prototypes: give one of them")
    output = args.output or Path(args.model).with_name(f"{Path(args.model).name.removesuffix('.eqp')}-uncertainty.eqp")
    if output.suffix != ".eqp":
        raise ValueError(f"{output}: the name of a potential ends in .eqp")
    check_writable(output)
    if args.out is not None:
        check_writable(args.out / "uncertainty.json")
    if args.test and not args.calibrate and (args.data or args.prototypes):
        raise ValueError("--test compares deviations with errors: give labelled frames that calibrate them (--calibrate FILE)")
    settings = config.build(UncertaintyConfig, {}, overrides=args.overrides)
    prepare(args.dtype or "float32", cores())
    potential = published.load(args.model, args.dtype)
    if args.committee:
        potential = committee([potential, *(published.load(name, args.dtype) for name in args.committee)])
    chosen = any(text.startswith("method") for text in args.overrides)
    runner = runner_of(potential.metadata.subtracted, args.method)
    read = partial(frames_of, settings=settings, cutoff=potential.cutoff)
    labelled = {name: read(getattr(args, name), f"--{name}") for name in ("calibrate", "test") if getattr(args, name)}
    check_early(settings, potential, labelled, chosen, args)
    if settings.sampler is not None:
        potential = sampled(potential, settings, args, output, runner)
    if args.data is not None or args.prototypes:
        learns = bool(settings.method_for(potential).learned_array)
        structures = read(args.data, "--data", labelled=learns) if args.data else prototypes(potential.elements)
        warn_of_overlap(structures, labelled)
        what = f"{len(structures)} frames of {Path(args.data).name}" if args.data else f"{len(structures)} prototype structures"
        method = settings.method_for(potential)
        potential = fit(potential, structures, None, method, batch_size=args.batch_size, runner=args.method, rests_on=what)
    elif potential.posterior is None:
        raise ValueError(f"{args.model} has no estimate of its uncertainty yet; give structures by --data or --prototypes")
    elif chosen:
        # From the sums in the file: no structure is evaluated again.
        known = potential.posterior
        kept = {"method": config.dump(known.method)}
        method = config.build(UncertaintyConfig, kept, overrides=args.overrides).method
        potential = with_statistics(potential, known.statistics, method, known.rests_on)
    if "calibrate" in labelled:
        potential = calibrated(potential, labelled["calibrate"], settings.calibrator, args.batch_size, runner)
    eqp.save(potential, output)
    if settings.sampler is not None:
        remove_state(sampling_folder(output))
    print(f"{args.model}: the estimate rests on {potential.posterior.rests_on if potential.posterior else 'nothing'}")
    for line in described(potential):
        print(line)
    if "test" in labelled:
        tell(potential, labelled, settings.calibrator, args, runner)
    print(f"written: {output}")


def sampled(potential: Any, settings: Any, args: argparse.Namespace, output: Path, runner: Any) -> Any:
    """Draw potentials with other parameters, and join them to a committee; a folder beside the output keeps the state.

    Raises:
        ValueError: no labelled structures, or a committee already.
    """
    from equipot.console import Console, stream_of
    from equipot.uncertainty import committee

    if args.data is None:
        raise ValueError("sampler: parameters are drawn given labelled structures, such as the training set: --data FILE")
    if potential.term.copies:
        raise ValueError("sampler: the parameters of a committee cannot be drawn; take one of its members")
    frames = frames_of(args.data, "--data", settings, potential.cutoff)
    folder = sampling_folder(output)
    return committee(settings.sampler.members(potential, frames, Console(stream_of(True)), folder, runner))


def sampling_folder(output: Path) -> Path:
    """Return the folder of the state of a sampler, which is removed when the potential has been written."""
    return output.with_name(f"{output.stem}-sampling")


def remove_state(folder: Path) -> None:
    """Remove what a sampler kept, and the folder unless there is more in it."""
    from equipot.data.subtract import NAME as RESULTS
    from equipot.training.chain import NAME

    for name in (NAME, RESULTS):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def check_early(settings: Any, potential: Any, labelled: dict[str, list[Any]], chosen: bool, args: argparse.Namespace) -> None:
    """Check what would otherwise be found after long work.

    Raises:
        ValueError: a method that does not apply, or too few frames.
    """
    from equipot.uncertainty.calibration import FEWEST

    method = type(settings.method).__name__
    if settings.sampler is not None and chosen and not settings.method.of_committees:
        raise ValueError(
            f"sampler: makes a committee, and {method} is for a single network; leave the method out, or choose Spread"
        )
    if settings.sampler is None and (chosen or args.data or args.prototypes):
        settings.method_for(potential).check(potential.term)
    if chosen and "test" in labelled and "calibrate" not in labelled:
        raise ValueError(
            "another method has no calibration yet: --test needs labelled frames that calibrate it (--calibrate FILE)"
        )
    if "calibrate" in labelled and len(labelled["calibrate"]) < FEWEST:
        raise ValueError(
            f"--calibrate: {len(labelled['calibrate'])} frames are too few; give at least {FEWEST}, 100 for intervals of 90% "
            "that hold to 3 points"
        )


def warn_of_overlap(structures: list[Any], labelled: dict[str, list[Any]]) -> None:
    """Say on stderr where frames that calibrate or test were seen before."""
    from equipot.uncertainty.labelled import said_of_overlap

    before, what = list(structures), "the estimate rests on"
    for name in ("calibrate", "test"):
        if said := said_of_overlap(f"--{name}", labelled.get(name, []), before, what):
            print(f"equipot: warning: {said}", file=sys.stderr)
        before, what = [*before, *labelled.get(name, [])], "the estimate rests on or is calibrated on"


def frames_of(source: str, name: str, settings: Any, cutoff: float, labelled: bool = True) -> list[Any]:
    """Read and check frames, without isolated atoms, with or without their labels.

    Raises:
        ValueError: there are none, or the checks found errors.
    """
    from equipot.data.config import Source
    from equipot.data.read import load_source

    reading = {field.name: getattr(settings.data, field.name) for field in dataclasses.fields(settings.data)}
    return list(load_source(Source(files=source, **reading), cutoff, name, labelled))


def described(potential: Any) -> list[str]:
    """Describe the calibration of each deviation in a line."""
    import numpy as np
    from ase.data import chemical_symbols

    from equipot.posterior import LEVELS
    from equipot.quantities import BY_NAME

    of = {row.name: BY_NAME[row.deviation_of] for row in potential.deviations if row.deviation_of}
    units = {row.name: row.shown for row in potential.deviations}
    lines = []
    for name, known in potential.posterior.calibrations.items():
        factor, floor, frames = np.asarray(known.quantiles)[..., LEVELS.index(0.9)], np.asarray(known.floor), known.frames
        power = "" if float(known.power) == 1 else f", power {float(known.power):.2f}"
        unit, size = units[name]
        unit += "/atom" * of[name].extensive

        def told(factor: float, floor: float, scale: float, unit: str = unit, size: float = size) -> str:
            if np.isnan(scale):
                return "not calibrated, for want of frames"
            held = "too few frames for 90%" if np.isnan(factor) else f"90% within ±{factor:.2f} deviations"
            what = "of at least" if scale else "of always (the estimate says nothing of the errors)"
            return held if floor == 0 else f"{held} {what} {size * floor:.3g} {unit}"

        scale = np.asarray(known.scale)
        if factor.ndim == 0:
            lines.append(f"{name}: calibrated on {frames[0]} frames, {told(float(factor), float(floor), float(scale))}{power}")
            continue
        each = [f"{chemical_symbols[z]} {told(factor[z], floor[z], scale[z])} ({n} frames)" for z, n in enumerate(frames) if n]
        lines.append(f"{name}: calibrated for {', '.join(each)}{power}")
    return lines or ["no deviations are calibrated, which takes labelled frames (--calibrate FILE); novelty needs none"]


def tell(potential: Any, labelled: dict[str, list[Any]], calibrator: Any, args: argparse.Namespace, runner: Any) -> None:
    """Print the table of diagnostics, beside that of the norm of the features, and draw it with --out.

    Raises:
        ValueError: no deviation is calibrated.
    """
    from equipot.pages import write_page
    from equipot.training.errors import write_json
    from equipot.uncertainty import FeatureNorm, calibrated, with_statistics
    from equipot.uncertainty.calibration import compare
    from equipot.uncertainty.diagnostics import assess, plot, table_rows, table_text
    from equipot.uncertainty.report import NAME, report_blocks

    rows = [row for row in potential.deviations if row.deviation_of]
    if not rows:
        raise ValueError("--test compares deviations with errors: give labelled frames that calibrate them (--calibrate FILE)")
    methods = {type(potential.posterior.method).__name__: potential}
    if "calibrate" in labelled and not potential.term.copies:
        bare = with_statistics(potential, potential.posterior.statistics, FeatureNorm(), potential.posterior.rests_on)
        methods["feature norm"] = calibrated(bare, labelled["calibrate"], calibrator, args.batch_size, runner)
    tables, first = {}, None
    for name, model in methods.items():
        samples = compare(model, labelled["test"], rows, args.batch_size, runner)
        first = first or samples
        known = model.posterior.calibrations
        tables[name] = {deviation: assess(sample, known[deviation]) for deviation, sample in samples.items()}
    units = {row.name: row.shown for row in rows}
    lines, title = table_rows(tables, units), f"{len(labelled['test'])} frames of {args.test}"
    print(f"on {title}:\n{table_text(lines)}")
    if args.out is not None:
        write_json(tables, args.out / "uncertainty.json")
        plot(first or {}, units, args.out / "uncertainty.png")
        blocks = report_blocks(title, lines, args.out / "uncertainty.png")
        page = write_page(args.out / NAME, f"Uncertainty of {args.model}", blocks)
        print(f"table and plots: {page}")
