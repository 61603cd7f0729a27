"""The files of a checkout that the site is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equipot.site.names import PACKAGE

NEEDED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "configs", "notebooks")


@dataclass(frozen=True)
class Checkout:
    """A checkout of the repository.

    Raises:
        ValueError: files of the site are missing in ``root``.
    """

    root: Path
    """Top folder, which holds README.md."""

    def __post_init__(self) -> None:
        if missing := [name for name in NEEDED if not (self.root / name).exists()]:
            raise ValueError(
                f"{self.root} has no {', '.join(missing)}: an installed package holds the code alone, and the site needs the "
                "repository; run `python -m equipot.site` there, or name it with --source"
            )

    @property
    def readme(self) -> Path:
        """The file of the front page and of the guide."""
        return self.root / "README.md"

    @property
    def notebooks(self) -> list[Path]:
        """Notebooks, in alphabetical order."""
        return sorted((self.root / "notebooks").glob("*.ipynb"))


def this_checkout() -> Path:
    """Return the folder that would be the checkout, if the running package is one."""
    return PACKAGE.parent
