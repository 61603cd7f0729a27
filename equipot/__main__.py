"""``python -m equipot`` where the program ``equipot`` is not on the path."""

from equipot.cli import entry

entry()
