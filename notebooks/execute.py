"""Makes tutorial.ipynb from tutorial.py by running it: ``pip install -e '.[dev]'``, then ``python notebooks/execute.py``.

The text is what is edited; the notebook, with its outputs, is what is read. It runs in a temporary folder.
"""

import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

TEXT = Path(__file__).parent / "tutorial.py"


def main() -> None:
    notebook = jupytext.read(TEXT)
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
    nbformat.write(notebook, TEXT.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
