"""YAML text to values that carry their file and line, and back; used by ``config``.

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
    """An error in a config, with the message ``file:line: path: message``."""


class Item(NamedTuple):
    """A value of a config and its place in the file."""

    value: Any
    """A scalar, a list of items or a dict from key to item."""
    where: str
    """``file:line`` or ``--set a.b``; empty for values from Python."""


def parse(path: str | Path) -> Item:
    """Read a YAML file as items.

    Raises:
        ConfigError: the file is not YAML, or a key is given twice.
        OSError: the file cannot be read.
    """
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
    """Convert a YAML node to items; ``where`` is the place of the node's key, ``place`` gives that of a node without a key."""
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
    """Convert plain Python values to items."""
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
    """Convert an unquoted word to None, a bool, a number or text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text.lower() in SPECIAL:
        return SPECIAL[text.lower()]
    if INT.fullmatch(text):
        return int(text.replace("_", ""))
    return float(text) if FLOAT.fullmatch(text) else text


def override(root: Item, text: str) -> Item:
    """Return the items with one ``a.b.c=value`` applied; missing sections are added, a number in the path indexes a list.

    Raises:
        ConfigError: no such path, or a value that is not YAML.
    """
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
    """Return the item with the value at a path replaced by ``leaf``."""
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
    """Convert an item to plain Python values."""
    if isinstance(item.value, dict):
        return {key: to_python(child) for key, child in item.value.items()}
    return [to_python(child) for child in item.value] if isinstance(item.value, list) else item.value


class Dumper(yaml.SafeDumper):
    """Writer of YAML with lists on one line and quotes around text that would be read as a number."""


Dumper.add_representer(list, lambda d, x: d.represent_sequence("tag:yaml.org,2002:seq", x, flow_style=True))
Dumper.add_representer(dict, lambda d, x: d.represent_mapping("tag:yaml.org,2002:map", x.items(), flow_style=False))
Dumper.add_representer(
    str, lambda d, x: d.represent_scalar("tag:yaml.org,2002:str", x, style=None if isinstance(scalar(x), str) else "'")
)
