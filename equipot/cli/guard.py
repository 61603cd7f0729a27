"""``equipot guard MODEL [-o NAME.eqp]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot.cli.runtime import prepare


def execute(args: argparse.Namespace) -> int:
    """Add a wall to a potential, prove that it repels and changes nothing else, and write the file; 1 if it does not hold."""
    from equipot import eqp, published
    from equipot.data.closest import closest_distances
    from equipot.data.read import read
    from equipot.files import check_writable
    from equipot.physics.guard import Wall, guard, is_guarded, lowered
    from equipot.workflows.compression import UNITS, deviations
    from equipot.workflows.doctor.specimens import rattled, specimens
    from equipot.workflows.doctor.walls import wall
    from equipot.workflows.guarding import pairs_inside, radii_text

    output = args.output or Path(args.model).with_name(f"{Path(args.model).name.removesuffix('.eqp')}-guarded.eqp")
    if output.suffix != ".eqp":
        raise ValueError(f"{output}: the name of a potential ends in .eqp")
    if Path(args.model).exists() and output.exists() and output.samefile(args.model):
        raise ValueError(f"{output} is the original, which stays as it is; choose another name")
    check_writable(output)
    prepare("float64")
    potential = published.load(args.model)
    if is_guarded(potential.term):
        raise ValueError(f"{args.model} has a wall already; `equipot doctor {args.model}` examines it")
    chosen = {name: getattr(args, name) for name in ("share", "width") if getattr(args, name) is not None}
    given = None if args.structures is None else list(read(args.structures))
    guarded = guard(potential, Wall(**chosen))
    if given is not None:
        guarded = lowered(guarded, closest_distances(given, potential.cutoff))
    print(f"{args.model}: {radii_text(guarded)}")
    exact = guarded.correction.astype("float64")
    found = [wall(exact.head(name) if name else exact, seed=0) for name in guarded.heads or ("",)]
    for finding in filter(None, found):
        print(f"{finding.verdict}: {finding.measured}\n    {finding.note}")
    structures = given or [rattled(structure, seed) for seed, structure in enumerate(specimens(potential.elements))]
    changes = deviations(potential, guarded, structures)
    told = ", ".join(f"{value:.1e} {UNITS[name]}" for name, value in changes.items())
    where = f"{len(given)} frames of {args.structures}" if given else "; ".join(s.source for s in structures)
    print(f"largest change, in double precision: {told}\n    on {where}, with {pairs_inside(guarded, structures)} pairs inside")
    if any(finding is None or finding.verdict == "broken" for finding in found):
        print("the wall does not hold: nothing is written")
        return 1
    eqp.save(guarded, output)
    print(f"written: {output}")
    return 0
