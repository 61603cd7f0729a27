"""``equipot models [NAME] [--uncertainty]``."""

from __future__ import annotations

import argparse

from equipot.cli.runtime import cores, prepare


def execute(args: argparse.Namespace) -> None:
    """Print the published potentials, or give one of them an estimate of its uncertainty."""
    from equipot.files import cache_root
    from equipot.published import MODELS, guess

    name = None if args.name is None else args.name.lower()
    if args.uncertainty:
        if name is None:
            raise ValueError("--uncertainty is for one of them: equipot models NAME --uncertainty")
        estimate(name)
        return
    if name is not None and name not in MODELS:
        raise FileNotFoundError(f"{args.name}: not the name of a published potential; {guess(name)}")
    for shown in MODELS if name is None else [name]:
        describe(shown)
    first = name or next(iter(MODELS))
    print(f"\nUse a name wherever a model is asked for, as in equipot.load({first!r}). The cache is {cache_root() / 'models'}.")


def describe(name: str) -> None:
    """Print what is known about a published potential."""
    from equipot.published import MODELS, is_cached, uncertainty_path

    entry = MODELS[name]
    state = f"by hand from {entry.url}"
    if entry.wheel is not None:
        state = f"in {entry.wheel.distribution} {entry.wheel.version}, {entry.wheel.megabytes} MB to fetch"
    if is_cached(name):
        state = "in the cache"
    known = uncertainty_path(name).is_file()
    print(f"{name}")
    print(f"    level of theory  {entry.level_of_theory}")
    print(f"    elements         {len(entry.atomic_numbers)}: Z = {entry.elements}")
    print(f"    size             {entry.megabytes} MB; {state}")
    print(f"    uncertainty      {'novelty, by prototype structures' if known else f'equipot models {name} --uncertainty'}")
    print(f"    licence          {entry.licence}")
    print(f"    please cite      {entry.citation}")


def estimate(name: str) -> None:
    """Make the estimate of uncertainty of a published potential, and say what it rests on."""
    from equipot.console import duration
    from equipot.workflows.named_uncertainty import estimate_named

    prepare("float32", cores())
    made = estimate_named(name, lambda text: print(text, flush=True))
    print(f"{name}: the estimate rests on {made.rests_on}")
    print(f"made in {duration(made.seconds)}, {made.path.stat().st_size / 1e6:.0f} MB: {made.path}")
    print(
        f"equipot.load({name!r}) has novelty from now on; deviations of energies and forces take labelled frames of your own: "
        f"equipot uncertainty {name} --calibrate FILE"
    )
