"""The strict YAML reader: what it accepts, what it says, and that writing loses nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from equipot import config
from equipot.config import ConfigError


@dataclass(frozen=True)
class Bessel:
    n: int = 8


@dataclass(frozen=True)
class Gaussian:
    n: int = 8
    width: float = 0.5

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ValueError(f"width {self.width} Å must be positive")


@dataclass(frozen=True)
class Model:
    cutoff: float
    channels: int = 32
    radial: Bessel | Gaussian = Bessel()
    hidden: tuple[int, ...] = (64, 64)
    box: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Data:
    train: str | tuple[str, ...]
    valid: float | int | str = 0.1
    energies: Literal["auto", "fit"] | dict[str, float] = "auto"
    folder: Path | None = None
    shuffle: bool = True
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    data: Data
    model: Model
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0
    anything: Any = None


GOOD = """\
data:
  train: a.xyz
model:
  cutoff: 5
"""


def read(tmp_path: Path, text: str, overrides: tuple[str, ...] = (), cls: type = Run) -> Any:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return config.load(path, cls, overrides)


def complaint(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(tmp_path) + "/", "")


def test_defaults_and_coercions(tmp_path):
    run = read(tmp_path, GOOD)
    assert run == Run(Data("a.xyz"), Model(5.0))
    assert type(run.model.cutoff) is float


def test_every_kind_of_value(tmp_path):
    text = """\
data:
  train: [a.xyz, 'b.xyz']
  valid: 1e-2
  energies: {H: -13.6, No: 1}   # nobelium is not a boolean
  folder: /tmp/x
  shuffle: false
  keys: {energy: REF_energy, stress: "1e-3"}
model:
  cutoff: 5e0
  radial: {kind: Gaussian, width: .25}
  hidden: [8, 1_000]
  box: [1, 2.5, .inf]
dtype: float64
anything: {a: [1, null, 010]}
"""
    run = read(tmp_path, text)
    assert run.data == Data(
        ("a.xyz", "b.xyz"), 0.01, {"H": -13.6, "No": 1.0}, Path("/tmp/x"), False, {"energy": "REF_energy", "stress": "1e-3"}
    )
    assert run.model == Model(5.0, radial=Gaussian(8, 0.25), hidden=(8, 1000), box=(1.0, 2.5, math.inf))
    assert run.dtype == "float64" and run.anything == {"a": [1, None, 10]}


def test_union_of_numbers_keeps_the_type(tmp_path):
    assert type(read(tmp_path, GOOD, ("data.valid=5",)).data.valid) is int
    assert type(read(tmp_path, GOOD, ("data.valid=0.5",)).data.valid) is float
    assert read(tmp_path, GOOD, ("data.valid=v.xyz",)).data.valid == "v.xyz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "  chanels: 3\n", "x.yaml:5: model.chanels: Model has no such field; did you mean `channels`?"),
        (GOOD + "  channels: 'ten'\n", "x.yaml:5: model.channels: expected int, got 'ten'"),
        (GOOD + "  channels: true\n", "x.yaml:5: model.channels: expected int, got True"),
        (GOOD + "  channels: 1e3\n", "x.yaml:5: model.channels: expected int (write 1000), got 1000.0"),
        (GOOD + "  channels:\n", "x.yaml:5: model.channels: expected int, got nothing"),
        (GOOD + "  channels: {a: 1}\n", "x.yaml:5: model.channels: expected int, got a section"),
        (GOOD + "  cutoff: 6\n", "x.yaml:5: cutoff: given twice, first at x.yaml:4"),
        (GOOD + "  hidden: 64\n", "x.yaml:5: model.hidden: expected a list such as [int, ...], got 64"),
        (GOOD + "  hidden:\n  - 1\n  - x\n", "x.yaml:7: model.hidden.1: expected int, got 'x'"),
        (GOOD + "  box: [1, 2]\n", "x.yaml:5: model.box: expected 3 entries, got 2"),
        (GOOD + "  radial: {kind: Besel}\n", "x.yaml:5: model.radial.kind: no such kind 'Besel'; did you mean `Bessel`?"),
        (GOOD + "  radial: Besel\n", "x.yaml:5: model.radial.kind: no such kind 'Besel'; did you mean `Bessel`?"),
        (GOOD + "  radial: {width: 1.0}\n", "x.yaml:5: model.radial.width: Bessel has no such field; choose from n"),
        (GOOD + "  radial:\n    kind: Gaussian\n    width: 0\n", "x.yaml:7: model.radial: width 0.0 Å must be positive"),
        (GOOD + "dtype: float16\n", "x.yaml:5: dtype: expected 'float32' or 'float64', got 'float16'"),
        ("data: {train: 3}\nmodel: {cutoff: 5}\n", "x.yaml:1: data.train: expected text or tuple[str, ...], got 3"),
        ("data: {train: a}\nmodel:\n  channels: 3\n", "x.yaml:2: model.cutoff: Model needs this field (float)"),
        ("data: {train: a}\n", "x.yaml:1: model: Run needs this field (Model)"),
        ("", "x.yaml:1: data: Run needs this field (Data)"),
        ("- 1\n", "x.yaml:1: expected a section (Run), got a list"),
        (GOOD + "\tx: 1\n", "x.yaml:5: found character '\\t' that cannot start any token"),
        (GOOD + "  shuffle: [1\n", "x.yaml:6: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_errors_name_file_line_and_path(tmp_path, text, message):
    assert complaint(tmp_path, text) == message


def test_a_wrong_entry_of_a_mapping_is_named(tmp_path):
    text = GOOD.replace("a.xyz", "a.xyz\n  energies: {H: x}")
    assert complaint(tmp_path, text) == "x.yaml:3: data.energies.H: expected float, got 'x'"


def test_overrides(tmp_path):
    changes = ("model.radial.kind=Gaussian", "model.radial.width=1e-1", "data.keys.energy=E", "model.hidden.1=7", "seed=3")
    run = read(tmp_path, GOOD + "  hidden: [1, 2]\n", changes)
    assert run.model.radial == Gaussian(width=0.1) and run.data.keys == {"energy": "E"} and run.model.hidden == (1, 7)
    assert run.seed == 3
    assert read(tmp_path, "{}", ("data.train=[a, b]", "model.cutoff=4")).data.train == ("a", "b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.chanels=3", "--set model.chanels: model.chanels: Model has no such field; did you mean `channels`?"),
        ("model.channels=x", "--set model.channels: model.channels: expected int, got 'x'"),
        ("seed", "--set seed: expected key=value, such as training.epochs=100"),
        ("model.cutoff.x=1", "--set model.cutoff.x: 5 at x.yaml:4 is not a section"),
        ("seed=[", "--set seed: not a YAML value: '[' (expected the node content, but found '<stream end>')"),
    ],
)
def test_errors_name_the_override(tmp_path, override, message):
    assert complaint(tmp_path, GOOD, override) == message


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        config.load(tmp_path / "none.yaml", Run)


def test_not_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="not a YAML text file"):
        config.load(tmp_path / "x.yaml", Run)


def test_round_trip_is_exact(tmp_path):
    run = Run(
        Data(("a", "1e-3", "null", "x: y"), 1e-17, {"H": 0.1 + 0.2, "O": -1e300}, Path("a b"), False, {"é": "ü"}),
        Model(5e22, radial=Gaussian(3, math.nextafter(0.25, 1)), box=(-0.0, math.inf, 1e-320)),
        anything=[1, {"a": None, "b": "true"}],
    )
    text = config.to_yaml(run)
    assert read(tmp_path, text) == run
    assert config.to_yaml(read(tmp_path, text)) == text
    assert config.build(Run, config.dump(run)) == run
    assert math.copysign(1, read(tmp_path, text).model.box[0]) == -1


def test_parts_left_out_keep_the_default_instance():
    @dataclass(frozen=True)
    class Outer:
        radial: Bessel | Gaussian = Gaussian(3, 0.1)

    assert config.convert(config.from_python({"radial": {"n": 4}}), Outer, "").radial == Gaussian(4, 0.1)
    assert config.build(Outer, {"radial": {"kind": "Gaussian"}}).radial == Gaussian(3, 0.1)
    assert config.build(Outer, {"radial": "Bessel"}).radial == Bessel()


def test_python_values_have_no_place():
    with pytest.raises(ConfigError, match=r"^job\.model\.cutoff: expected float, got '5'$"):
        config.build(Run, {"data": {"train": "a"}, "model": {"cutoff": "5"}}, "job")


linen = pytest.importorskip("flax.linen")
term = pytest.importorskip("equipot.term")


class Springs(term.Term):
    """A term from outside the package."""

    strength: float = 1.0
    unresolved: NotImported = None  # noqa: F821


@dataclass(frozen=True)
class Open:
    model: term.Term
    extra: tuple[term.Term, ...] = ()


HERE = f"{__name__}:Springs"


def test_terms_from_anywhere(tmp_path):
    opened = read(tmp_path, f"model: {{kind: '{HERE}', cutoff: 5, strength: 2}}", cls=Open)
    assert opened.model == Springs(5.0, 2.0)
    assert config.dump(opened)["model"] == {"kind": HERE, "cutoff": 5.0, "strength": 2.0}
    both = Open(Springs(1.0), (Springs(2.0), Springs(3.0, 4.0)))
    assert config.build(Open, config.dump(both)) == both


def test_a_term_alone_round_trips():
    plain = config.dump(Springs(5.0, 2.0))
    assert plain["kind"] == HERE
    assert config.build(term.Term, plain) == Springs(5.0, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {kind: MACEE}", "x.yaml:1: model.kind: no such kind 'MACEE'; did you mean `MACE`?"),
        ("model: {cutoff: 5}", f"x.yaml:1: model: needs `kind`: one of {', '.join(term.Term.builtin_kinds)}"),
        ("model: {kind: ':C'}", "x.yaml:1: model.kind: cannot import :C: Empty module name"),
        ("model: {kind: 'a.b:C'}", "x.yaml:1: model.kind: cannot import a.b:C: No module named 'a'"),
        ("model: {kind: 'pathlib:Path'}", "x.yaml:1: model.kind: pathlib:Path is not a dataclass or a linen module"),
        (f"model: {{kind: '{__name__}:Bessel'}}", f"x.yaml:1: model.kind: {__name__}:Bessel is not a Term"),
        (f"model: {{kind: '{HERE}', cutoff: 5, unresolved: 3}}", "x.yaml:1: model.unresolved: cannot be set from a config"),
        (f"model: {{kind: '{HERE}', name: x}}", "x.yaml:1: model.name: Springs has no such field; choose from"),
    ],
)
def test_errors_of_terms(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, cls=Open)
    assert str(caught.value).replace(str(tmp_path) + "/", "").startswith(message)


@dataclass(frozen=True)
class Continued:
    from_: str
    part: str = "all"


@dataclass(frozen=True)
class Either:
    model: term.Term | Continued


def test_a_keyword_of_python_is_a_key_and_a_required_key_chooses_the_class(tmp_path):
    found = read(tmp_path, "model: {from: a.eqp}", cls=Either)
    assert found.model == Continued("a.eqp")
    assert config.dump(found)["model"] == {"kind": "Continued", "from": "a.eqp", "part": "all"}
    assert read(tmp_path, config.to_yaml(found), cls=Either) == found
    assert read(tmp_path, f"model: {{kind: '{HERE}'}}", ("model.strength=2",), cls=Either).model == Springs(strength=2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {form: a.eqp}", f"x.yaml:1: model: needs `kind`: one of {', '.join(term.Term.builtin_kinds)}; or `from`"),
        ("model: {from: a.eqp, prt: b}", "x.yaml:1: model.prt: Continued has no such field; did you mean `part`?"),
        ("model:\n  from: 3", "x.yaml:2: model.from: expected text, got 3"),
        ("model: {kind: Continued}", "x.yaml:1: model.from: Continued needs this field (text)"),
        ("model: {kind: Continue}", "x.yaml:1: model.kind: no such kind 'Continue'; did you mean `Continued`?"),
        (
            "model: {from_: a.eqp}",
            f"x.yaml:1: model: needs `kind`: one of {', '.join(term.Term.builtin_kinds)}; or `from`",
        ),
    ],
)
def test_errors_where_a_key_chooses_the_class(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, cls=Either)
    assert str(caught.value).replace(str(tmp_path) + "/", "").startswith(message)
