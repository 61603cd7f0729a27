"""``equipot hessian DATA --calculator NAME --out FILE``."""

from __future__ import annotations

import argparse
import sys

from equipot.cli.runtime import prepare


def execute(args: argparse.Namespace) -> int:
    """Label frames with Hessians and write them; return 1 if a frame is left out or its Hessian is not sound, else 0."""
    from equipot import config
    from equipot.console import Console
    from equipot.data.read import read_structures
    from equipot.workflows.hessians import HessianConfig, label_hessians, source_of

    given = {name: getattr(args, name) for name in ("columns", "projections", "step") if getattr(args, name) is not None}
    settings = config.build(HessianConfig, given, overrides=args.overrides)
    prepare("float64")
    frames = read_structures(args.data)
    source = source_of(args.calculator, settings)
    found = label_hessians(frames, source, settings, args.out, Console(sys.stdout))
    kept = f", {found.kept} of them done before" if found.kept else ""
    print(
        f"{args.out}: {found.labelled} of {len(frames)} frames with Hessians by {args.calculator}{kept}; the antisymmetric "
        f"part was at most {found.asymmetry:.1e} of a Hessian"
    )
    for failure in found.failures:
        print(f"equipot: {failure}", file=sys.stderr)
    return int(bool(found.failures))
