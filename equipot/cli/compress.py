"""``equipot compress MODEL -o NAME.eqp``."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot.cli.runtime import prepare


def execute(args: argparse.Namespace) -> None:
    """Tabulate the radial networks of a potential, print the deviations, and write the file."""
    from equipot import eqp, published
    from equipot.data.read import read
    from equipot.files import check_writable
    from equipot.models.compress import compress
    from equipot.nn.radial import Splines
    from equipot.workflows.compression import UNITS, deviations
    from equipot.workflows.doctor.specimens import rattled, specimens

    if args.output.suffix != ".eqp":
        raise ValueError(f"{args.output}: the name of a potential ends in .eqp")
    if Path(args.model).exists() and args.output.exists() and args.output.samefile(args.model):
        raise ValueError(f"{args.output} is the original, which cannot be made again from its splines; choose another name")
    check_writable(args.output)
    prepare("float64")
    potential = published.load(args.model)
    intervals = Splines.intervals if args.intervals is None else args.intervals
    compressed = compress(potential, intervals)
    made = [rattled(structure, seed) for seed, structure in enumerate(specimens(potential.elements))]
    structures = made if args.structures is None else list(read(args.structures))
    found = deviations(potential, compressed.potential, structures)
    eqp.save(compressed.potential, args.output)
    print(
        f"{args.model}: radial weights of all layers as quintic splines on {intervals} intervals; they deviate by "
        f"{compressed.weights:.0e} of the largest, their slopes by {compressed.slopes:.0e}"
    )
    told = ", ".join(f"{value:.1e} {UNITS[name]}" for name, value in found.items())
    where = "; ".join(s.source for s in made) if args.structures is None else f"{len(structures)} frames of {args.structures}"
    heads = f", over its {len(potential.heads)} heads" if potential.heads else ""
    print(f"largest deviation from the original{heads}, in double precision: {told}\n    on {where}")
    print(f"written: {args.output}")
