"""The classes that a config can hold, found from the annotations that the reader of configs follows."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from equipot import config
from equipot.cli.parser import ANALYSES, WORKFLOWS
from equipot.data.config import DataConfig, Reading
from equipot.md.config import MDConfig
from equipot.term import Term
from equipot.training.config import FineTune, TrainConfig
from equipot.uncertainty.config import UncertaintyConfig
from equipot.workflows.hessians import HessianConfig
from equipot.yamltext import Dumper


@dataclass(frozen=True)
class Root:
    """A section of a config that no other section needs to be read, and the page of its keys."""

    slug: str
    """Name of the page."""
    title: str
    """Heading of the page."""
    use: str
    """Where such a section is written, in Markdown-free plain text with ``code``."""
    classes: tuple[type, ...]
    """The classes of the section."""


def roots() -> list[Root]:
    """Return all sections with a page; a class is described on the first page that reaches it."""
    return [
        Root("data", "Data", "The section ``data`` of a training config, and ``--set`` of ``equipot data`` and ``equipot "
             "evaluate``.", (DataConfig, Reading)),
        Root("model", "Models", "The section ``model`` of a training config: a network, charges, walls, a list of terms, or a "
             "potential that is fine-tuned.", (Term, FineTune)),
        Root("uncertainty", "Uncertainty", "The section ``training.uncertainty`` of a training config, and ``--set`` of "
             "``equipot uncertainty``.", (UncertaintyConfig,)),
        Root("training", "Training", "A config of ``equipot train``.", (TrainConfig,)),
        Root("md", "Molecular dynamics", "A config of ``equipot md``.", (MDConfig,)),
        *(workflow(name, what) for name, (what, _) in [*WORKFLOWS.items(), *ANALYSES.items()]),
        Root("hessian", "equipot hessian", "``--set`` of ``equipot hessian``.", (HessianConfig,)),
    ]  # fmt: skip


def workflow(name: str, what: str) -> Root:
    """Return the section of a command of ``equipot.workflows``."""
    command = importlib.import_module(f"equipot.workflows.{name}.command")
    return Root(name, f"equipot {name}", f"{what[0].upper()}{what[1:]}: ``--set`` and ``--config``.", (command.CONFIG,))


def kinds(base: type) -> dict[str, type]:
    """Return the built-in classes of a base with ``builtin_kinds``, by the value of ``kind``."""
    found = {name: target.partition(":") for name, target in config.open_base(base).builtin_kinds.items()}
    return {name: getattr(importlib.import_module(module), cls) for name, (module, _, cls) in found.items()}


def sections_of(annotation: Any) -> list[type]:
    """Return the classes of sections that an annotation names, those in lists and mappings included."""
    if config.is_section(annotation):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in sections_of(part)]


def is_open(cls: type) -> bool:
    """Whether a class stands for all its subclasses, which ``kind`` chooses from."""
    return config.open_base(cls) is cls


def types_of(cls: type) -> dict[str, Any]:
    """Return the types of the keys of a section."""
    return {key: config.field_types(cls)(field.name) for key, field in config.fields(cls).items()}


def reached(start: Iterable[type], before: Iterable[type] = ()) -> list[type]:
    """Return the classes that a config can hold below some classes, in the order of their fields, without those ``before``."""
    found, waiting = list(before), list(start)
    known = len(found)
    while waiting:
        cls = waiting.pop(0)
        if cls in found:
            continue
        found.append(cls)
        below = list(kinds(cls).values()) if is_open(cls) else [s for kind in types_of(cls).values() for s in sections_of(kind)]
        waiting = [*below, *waiting]
    return found[known:]


def below(cls: type) -> list[type]:
    """Return the classes that the keys of a section can hold, or those that a base stands for."""
    if is_open(cls):
        return list(kinds(cls).values())
    return [section for annotation in types_of(cls).values() for section in sections_of(annotation)]


def pages() -> list[tuple[Root, list[type]]]:
    """Return every page with the classes that are described there."""
    found: list[tuple[Root, list[type]]] = []
    for root in roots():
        found.append((root, reached(root.classes, [cls for _, classes in found for cls in classes])))
    return found


def described(annotation: Any) -> str:
    """Name a type for the readers of a config, in plain text."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, args))
    if origin in (tuple, list) or origin is not None and issubclass_of(origin, list):
        return (
            f"list of {described(args[0])}" if len(args) == 1 or args[1:] == (...,) else f"[{', '.join(map(described, args))}]"
        )
    if origin is not None and issubclass_of(origin, Mapping):
        return f"{{{described(args[0])}: {described(args[1])}}}"
    if args:
        return " | ".join(dict.fromkeys(described(part) for part in args))
    named = {str: "text", bool: "true | false", int: "integer", float: "number", type(None): "null", Any: "any"}
    return named.get(annotation) or config.describe(annotation)


def issubclass_of(origin: Any, base: type) -> bool:
    """Whether the origin of a generic type is a class below a base."""
    return isinstance(origin, type) and issubclass(origin, base)


def default_text(cls: type, key: str) -> str:
    """Write the default of a key as in a config; empty for a key that must be given."""
    field, annotation = config.fields(cls)[key], types_of(cls)[key]
    default = config.default_of(field)
    if default is dataclasses.MISSING:
        return ""
    plain = changed(default, config.to_plain(default, annotation))
    if isinstance(plain, dict) and set(plain) == {config.KIND}:
        return str(plain[config.KIND])
    return flow(plain)


def changed(value: Any, plain: Any) -> Any:
    """Return plain values without the keys of sections that have their defaults; ``kind`` stays."""
    if isinstance(value, Mapping):
        return {key: changed(child, plain[key]) for key, child in value.items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type) or (usual := whole(type(value))) is None:
        return plain
    defaults = config.to_plain(usual, type(value))
    return {key: child for key, child in plain.items() if key == config.KIND or child != defaults[key]}


def whole(cls: type) -> Any:
    """Return an instance with all defaults; None for a class with keys that must be given, or one of several at least."""
    try:
        return None if config.required(cls) else cls()
    except ValueError:
        return None


class FlowDumper(Dumper):
    """Writer of YAML in one line."""


FlowDumper.add_representer(dict, lambda d, x: d.represent_mapping("tag:yaml.org,2002:map", x.items(), flow_style=True))


def flow(value: Any) -> str:
    """Write a plain value as YAML in one line."""
    text = yaml.dump(value, Dumper=FlowDumper, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n...\n").strip()
