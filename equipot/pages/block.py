"""What every block of a page has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A section of a page under a heading, which is plain text."""

    heading: str

    @property
    def style(self) -> str:
        """Class of the section in the style sheet; empty for none."""
        return ""

    @property
    def scripts(self) -> tuple[str, ...]:
        """Script elements that a page with such blocks needs once, in this order."""
        return ()

    def html(self) -> str:
        """Write what stands below the heading.

        Raises:
            NotImplementedError: the class of the block does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is written; give it a method html()")
