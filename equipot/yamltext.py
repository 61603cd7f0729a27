"""YAML text to values that know the place they came from, and back; the language that ``config`` builds on.

Scalars follow YAML 1.2's core schema: ``1e-3`` is a number, ``no`` and ``on`` are text, ``010`` is ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class ConfigError(ValueError):
    """Something in a config that the user has to mend: ``file:line: path: message``."""


class Item(NamedTuple):
    """A value of the config and the place that it came from."""

    value: Any
    """A scalar, a list of items or a dict from key to item."""
    where: str
    """``file:line`` or ``--set a.b``; empty for values from Python."""


def parse(path: str | Path) -> Item:
    """A YAML file as items that know their line."""
    try:
        with open(path, encoding="utf-8") as file:
            node = yaml.compose(file, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML text file: {' '.join(str(error).split())}") from None
    return Item({}, f"{path}:1") if node is None else from_node(node, lambda n: f"{path}:{n.start_mark.line + 1}")


def from_node(node: yaml.Node, place: Callable[[yaml.Node], str], where: str | None = None) -> Item:
    """Items of a YAML node; ``where`` is the place of its key, if it has one."""
    where = where or place(node)
    if isinstance(node, yaml.ScalarNode):
        return Item(scalar(node.value) if node.style is None else node.value, where)
    if isinstance(node, yaml.SequenceNode):
        return Item([from_node(child, place) for child in node.value], where)
    found: dict[str, Item] = {}
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{place(key)}: a key must be a single word")
        if key.value in found:
            raise ConfigError(f"{place(key)}: {key.value}: given twice, first at {found[key.value].where}")
        found[key.value] = from_node(child, place, place(key))
    return Item(found, where)


def from_python(value: Any, where: str = "") -> Item:
    """Items of plain Python values."""
    if isinstance(value, Mapping):
        return Item({str(key): from_python(child, where) for key, child in value.items()}, where)
    if isinstance(value, list | tuple):
        return Item([from_python(child, where) for child in value], where)
    return Item(value, where)


WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
INT = re.compile(r"[-+]?[0-9][0-9_]*")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


def scalar(text: str) -> Any:
    """What an unquoted word means."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text.lower() in SPECIAL:
        return SPECIAL[text.lower()]
    if INT.fullmatch(text):
        return int(text.replace("_", ""))
    return float(text) if FLOAT.fullmatch(text) else text


def override(root: Item, text: str) -> Item:
    """The items with one ``a.b.c=value`` replaced; sections on the way are made, a number is an index into a list."""
    path, equals, value = text.partition("=")
    path, where = path.strip(), f"--set {path.strip()}"
    if not equals or not path:
        raise ConfigError(f"--set {text}: expected key=value, such as training.epochs=100")
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not a YAML value: {value!r} ({getattr(error, 'problem', error)})") from None
    leaf = Item(None, where) if node is None else from_node(node, lambda _: where, where)
    return put(root, path.split("."), leaf)


def put(item: Item, keys: list[str], leaf: Item) -> Item:
    """The item with the value at a path replaced."""
    if not keys:
        return leaf
    key, rest = keys[0], keys[1:]
    if isinstance(item.value, list):
        if not key.isdigit() or int(key) >= len(item.value):
            raise ConfigError(f"{leaf.where}: {key!r} is not an index into the {len(item.value)} entries at {item.where}")
        return Item([put(x, rest, leaf) if k == int(key) else x for k, x in enumerate(item.value)], item.where)
    if isinstance(item.value, str):
        # A bare word where a section may stand is its kind.
        children = {"kind": item}
    elif item.value is None or isinstance(item.value, dict):
        children = dict(item.value or {})
    else:
        raise ConfigError(f"{leaf.where}: {item.value!r} at {item.where} is not a section")
    children[key] = put(children.get(key, Item(None, leaf.where)), rest, leaf)
    return Item(children, item.where or leaf.where)


def to_python(item: Item) -> Any:
    """Plain values of an item."""
    if isinstance(item.value, dict):
        return {key: to_python(child) for key, child in item.value.items()}
    return [to_python(child) for child in item.value] if isinstance(item.value, list) else item.value


class Dumper(yaml.SafeDumper):
    """Lists on one line; text that would be read as a number is quoted."""


Dumper.add_representer(list, lambda d, x: d.represent_sequence("tag:yaml.org,2002:seq", x, flow_style=True))
Dumper.add_representer(dict, lambda d, x: d.represent_mapping("tag:yaml.org,2002:map", x.items(), flow_style=False))
Dumper.add_representer(
    str, lambda d, x: d.represent_scalar("tag:yaml.org,2002:str", x, style=None if isinstance(scalar(x), str) else "'")
)
