"""What the README shows works: its Python runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import linen as nn

from equipot import eqp
from equipot.cli.parser import parser
from equipot.metadata import Metadata
from equipot.potential import Potential
from equipot.term import Atomic, Term

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


class Bumps(Term):
    """A soft repulsion: it compiles at once, and the README does not care what its potential is."""

    @nn.compact
    def __call__(self, graph, vectors):
        x = jnp.sum(vectors**2, axis=-1) / self.cutoff**2
        return Atomic(energy=0.01 * jnp.sum(jnp.where(graph.slot_mask & (x < 1), (1 - jnp.minimum(x, 1)) ** 3, 0.0), axis=-1))


def test_python_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs/quickstart/train").mkdir(parents=True)
    known = Metadata(atomic_energies=((1, -13.0), (6, -1000.0), (8, -2000.0)))
    eqp.save(Potential(Bumps(4.0), {}, known), "runs/quickstart/train/best.eqp")
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out
    assert jnp.isfinite(names["state"].position).all()


COMMANDS = [line.split("#")[0].strip() for line in re.findall(r"^    (?:.*&& )?(equipot .*)$", TEXT, re.MULTILINE)]


def test_there_are_commands():
    shown = {"quickstart", "data", "train", "evaluate", "md", "models", "convert", "doctor", "compress", "guard", "uncertainty"}
    shown |= {"phonons", "vibrations", "hessian", "relax", "bulk", "neb", "spectra", "transport", "constitutive"}
    assert {line.split()[1] for line in COMMANDS} == shown


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    args = parser().parse_args(shlex.split(line)[1:])
    for text in getattr(args, "overrides", []):
        assert "=" in text


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
