"""``python -m equipot.site --out DIR``: build the site of the documentation, and check its links."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from equipot.site.checking import check
from equipot.site.checkout import Checkout, this_checkout


def main(argv: Sequence[str] | None = None) -> int:
    """Build the site; return the exit code: 0 done, 1 warnings or broken links, 2 something to mend in the input."""
    parser = argparse.ArgumentParser(prog="python -m equipot.site", description="Build the site of the documentation.")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the site; an older site is replaced")
    parser.add_argument("--source", metavar="DIR", type=Path, help="checkout of the repository (default: that of the package)")
    parser.add_argument("--check", action="store_true", help="check links inside the site, and list those to the outside")
    args = parser.parse_args(argv)
    try:
        from equipot.site.build import build

        build(Checkout((args.source or this_checkout()).resolve()), args.out.resolve())
    except ModuleNotFoundError as error:
        print(f"the site needs the package {error.name}: pip install '.[docs]'", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"site: {args.out / 'index.html'}")
    return tell_links(args.out) if args.check else 0


def tell_links(out: Path) -> int:
    """Check the links of a site and tell what they are; return 1 if one of them leads nowhere, else 0."""
    checked = check(out)
    for line in [*checked.broken, *checked.loaded]:
        print(f"broken: {line}" if line in checked.broken else f"loaded from the network: {line}", file=sys.stderr)
    print(f"{len(checked.inside)} links inside lead somewhere, {len(checked.broken)} do not; outside, not followed:")
    for address, pages in sorted(checked.outside.items()):
        print(f"  {address}  ({pages[0]}{f' and {len(pages) - 1} more' if len(pages) > 1 else ''})")
    return int(bool(checked.broken or checked.loaded))


if __name__ == "__main__":
    sys.exit(main())
