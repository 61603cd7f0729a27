"""``equipot convert SOURCE -o NAME.eqp``."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipot.cli.runtime import prepare


def execute(args: argparse.Namespace) -> None:
    """Convert a checkpoint, compare the potential with reference values if any are known, and write the file."""
    import jax

    from equipot import eqp, published
    from equipot.files import check_writable, write_atomically

    if args.output.suffix != ".eqp":
        raise ValueError(f"{args.output}: the name of a potential ends in .eqp")
    check_writable(args.output)
    prepare("float32")
    if args.source.lower() in published.MODELS:
        if args.head or args.reference:
            raise ValueError(f"{args.source} has a head and references of its own; leave --head and --reference out")
        write_atomically(args.output, published.fetch(args.source.lower()).read_bytes())
        print(f"written: {args.output}")
        return
    if args.source.lower().endswith(".eqp"):
        raise ValueError(f"{args.source} is a potential of equipot already: copy it, or use it as it is")
    if not Path(args.source).exists() and not Path(args.source).suffix:
        guess = published.guess(args.source.lower())
        raise FileNotFoundError(f"{args.source}: neither a file nor the name of a published potential; {guess}")
    potential, certificate = published.import_checkpoint(args.source, args.head, args.reference)
    eqp.save(potential, args.output)
    told, count = potential.metadata, sum(leaf.size for leaf in jax.tree.leaves(potential.params))
    print(
        f"{args.source}: {dict(told.extra)['program']}, {type(potential.term).__name__} with {count} parameters, "
        f"{len(potential.elements)} elements, cutoff {potential.cutoff:g} Å, made in {told.dtype}"
    )
    if told.citation:
        print(f"{told.level_of_theory}; licence {told.licence}; please cite {told.citation}")
    if certificate is None:
        print("not compared with its source: no reference values are known for this file; give some with --reference FILE")
    else:
        print(f"deviates by {certificate}")
    print(f"written: {args.output}")
