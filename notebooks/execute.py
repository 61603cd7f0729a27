"""Makes notebooks from their texts by running them: ``pip install -e '.[dev]'``, then ``python notebooks/execute.py tutorial``.

The text (tutorial.py) is what is edited; the notebook (tutorial.ipynb), with its outputs, is what is read. It runs in a
temporary folder. Without names, all are made.
"""

import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def make(text: Path) -> None:
    notebook = jupytext.read(text)
    for k, cell in enumerate(notebook.cells):
        cell.id = f"cell-{k}"  # Not random, for small diffs.
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=3600, resources=place, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, text.with_suffix(".ipynb"))


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.py") if path.name != "execute.py"):
        make(FOLDER / f"{name}.py")
