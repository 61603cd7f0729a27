"""Strict YAML to typed sections and back.

A section is a frozen dataclass (or a flax linen module, whose fields are dataclass fields too); only its fields are accepted as
keys. Where a field may hold one of several classes, ``kind: ClassName`` chooses; it may be left out to keep the class of the
field's default, or where the given keys hold the required fields of only one of the classes. A field annotated with a
class that has an attribute ``builtin_kinds`` accepts any subclass: ``kind`` is a key of ``builtin_kinds``, or
``package.module:Class`` for a class outside this package. The key of a field drops a trailing underscore: ``from_`` is set by
``from``, which Python reserves.
Every error names the file, the line and the path of the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from equipot.yamltext import ConfigError, Dumper, Item, from_python, override, parse, scalar, to_python

__all__ = ["ConfigError", "build", "dump", "load", "to_yaml"]

KIND = "kind"


def load(path: str | Path, cls: type, overrides: Sequence[str] = ()) -> Any:
    """Read a YAML file as an instance of ``cls``, with ``a.b.c=value`` overrides applied.

    Raises:
        ConfigError: a key that ``cls`` lacks, a missing key, or a value of the wrong type.
        OSError: the file cannot be read.
    """
    root = parse(path)
    for text in overrides:
        root = override(root, text)
    return convert(root, cls, "")


def build(cls: type, mapping: Mapping[str, Any], path: str = "", overrides: Sequence[str] = ()) -> Any:
    """Convert plain Python values to an instance of ``cls``, by the rules of ``load``; ``path`` prefixes error messages.

    Raises:
        ConfigError: a key that ``cls`` lacks, a missing key, or a value of the wrong type.
    """
    root = from_python(mapping)
    for text in overrides:
        root = override(root, text)
    return convert(root, cls, path)


def dump(section: Any) -> dict[str, Any]:
    """Convert a section to plain Python values, which ``build`` converts back; ``kind`` is written wherever a choice exists."""
    return to_plain(section, open_base(type(section)) or type(section))


def to_yaml(section: Any) -> str:
    """Convert a section to YAML text, which ``load`` converts back; floats are exact."""
    return yaml.dump(dump(section), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


# Converting items to what the annotations ask for


def fail(item: Item, path: str, message: str) -> typing.NoReturn:
    """Raise a ConfigError that names file, line and path of a key."""
    raise ConfigError(": ".join(part for part in (item.where, path, message) if part))


def expected(item: Item, path: str, what: str) -> typing.NoReturn:
    """Raise a ConfigError that says which type was expected and which was given."""
    shown = {dict: "a section", list: "a list", type(None): "nothing"}.get(type(item.value), repr(item.value))
    fail(item, path, f"expected {what}, got {shown}")


def convert(item: Item, kind: Any, path: str, default: Any = None) -> Any:
    """Convert an item to the type of the annotation ``kind``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return to_python(item)
    if origin is typing.Union or isinstance(kind, types.UnionType):
        return convert_union(item, args, path, default)
    if origin is typing.Annotated:
        return convert(item, args[0], path, default)
    if is_section(kind):
        return convert_section(item, (kind,), path, default)
    if origin is typing.Literal:
        if any(type(item.value) is type(choice) and item.value == choice for choice in args):
            return item.value
        expected(item, path, " or ".join(map(repr, args)))
    if origin in (tuple, list, Sequence) or kind in (tuple, list):
        return convert_list(item, origin or kind, args, path)
    if origin in (dict, Mapping) or kind is dict:
        return convert_dict(item, args, path, default)
    return convert_leaf(item, kind, path)


def convert_leaf(item: Item, kind: Any, path: str) -> Any:
    """Convert a scalar. An int is accepted as a float; a bool is never a number."""
    value = item.value
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        expected(item, path, f"int (write {int(value)})")
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind in (None, type(None)):
        kind = type(None)
    if kind in (int, float, bool, str, type(None)):
        if type(value) is kind:
            return value
        expected(item, path, {bool: "true or false", type(None): "nothing"}.get(kind, describe(kind)))
    fail(item, path, f"cannot be set from a config: it holds {describe(kind)}")


def convert_list(item: Item, origin: Any, args: tuple, path: str) -> Any:
    """Convert a list to list[x], tuple[x, ...] or a tuple of fixed length."""
    if not isinstance(item.value, list):
        expected(item, path, f"a list such as [{', '.join(describe(a) for a in args) or '...'}]")
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(item.value):
            fail(item, path, f"expected {len(args)} entries, got {len(item.value)}")
        kinds = args
    else:
        kinds = (args[0] if args else Any,) * len(item.value)
    values = [convert(x, kind, f"{path}.{k}") for k, (x, kind) in enumerate(zip(item.value, kinds, strict=True))]
    return values if origin is list else tuple(values)


def convert_dict(item: Item, args: tuple, path: str, default: Any = None) -> dict:
    """Convert a mapping from names, or from numbers, to values.

    Fields that an entry leaves out are copied from the entry of ``default`` with its name, else from the first entry.
    """
    if not isinstance(item.value, dict):
        expected(item, path, "a mapping such as {key: value}")
    of_key, of_value = args or (Any, Any)
    key = lambda text, x: text if of_key in (str, Any) else convert(Item(scalar(text), x.where), of_key, f"{path}.{text}")
    entries = default if isinstance(default, Mapping) else {}
    first = next(iter(entries.values()), None)
    return {key(text, x): convert(x, of_value, f"{path}.{text}", entries.get(text, first)) for text, x in item.value.items()}


def convert_union(item: Item, options: tuple, path: str, default: Any) -> Any:
    """Convert an item to the fitting option: None, a section chosen by ``kind``, or the first simple type without an error."""
    if item.value is None and type(None) in options:
        return None
    sections = tuple(option for option in options if is_section(option))
    simple = [option for option in options if option not in sections and option is not type(None)]
    mappings = [option for option in simple if typing.get_origin(option) in (dict, Mapping)]
    names = [option.__name__ for option in sections]
    if isinstance(item.value, dict) and sections and (KIND in item.value or not mappings):
        return convert_section(item, sections, path, default)
    if isinstance(item.value, str) and sections and (item.value in names or not simple):
        return convert_section(item, sections, path, default)
    if isinstance(item.value, list) and any(list_kind(option) for option in sections):
        return convert_section(item, sections, path, default)
    if len(simple) == 1 and not sections:
        return convert(item, simple[0], path)
    for option in sorted(simple, key=lambda option: option is not type(item.value)):
        try:
            return convert(item, option, path)
        except ConfigError:
            # Where only one option is a list (or a mapping), its message about the entry helps more than one about the whole.
            if fits(item.value, option) and sum(fits(item.value, other) for other in simple) == 1:
                raise
    expected(item, path, " or ".join(describe(option) for option in (*names, *simple)))


def fits(value: Any, option: Any) -> bool:
    """Whether value and option are both lists or both mappings."""
    wanted: Mapping[type, tuple[Any, ...]] = {dict: (dict, Mapping), list: (list, tuple, Sequence)}
    return (typing.get_origin(option) or option) in wanted.get(type(value), ())


def convert_section(item: Item, options: tuple[type, ...], path: str, default: Any) -> Any:
    """Convert an item to one of the classes; missing fields are copied from a ``default`` of the chosen class."""
    if isinstance(item.value, str) and (len(options) > 1 or open_base(options[0])):
        item = Item({KIND: item}, item.where)
    if isinstance(item.value, list) and (found := [x for option in options if (x := list_kind(option))]):
        kind, key = found[0]
        item = Item({KIND: Item(kind, item.where), key: item}, item.where)
    if item.value is None:
        item = Item({}, item.where)
    if not isinstance(item.value, dict):
        expected(item, path, f"a section ({' or '.join(option.__name__ for option in options)})")
    cls = choose(item, options, path, default)
    hints, names = field_types(cls), fields(cls)
    start = {key: getattr(default, field.name) for key, field in names.items()} if type(default) is cls else {}
    for key, child in item.value.items():
        if key != KIND and key not in names:
            fail(child, join(path, key), f"{cls.__name__} has no such field; {suggest(key, list(names))}")
    values = {names[key].name: value for key, value in start.items()}
    for key, field in names.items():
        if key in item.value:
            before = start.get(key, default_of(field))
            values[field.name] = convert(item.value[key], hints(field.name), join(path, key), before)
        elif key not in start and default_of(field) is dataclasses.MISSING:
            fail(item, join(path, key), f"{cls.__name__} needs this field ({describe(hints(field.name))})")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        # The line of the field that the message speaks of, where it names one.
        named = [child for key, child in item.value.items() if re.search(rf"\b{re.escape(key)}\b", str(error))]
        fail(named[0] if named else item, path, str(error))


def choose(item: Item, options: tuple[type, ...], path: str, default: Any) -> type:
    """Return the class that ``kind`` names, else the one whose required keys are given, the default's, or the only one."""
    named = {option.__name__: option for option in options}
    is_open: list[Any] = [option for option in options if open_base(option) is option]
    builtin = {name: target for option in is_open for name, target in option.builtin_kinds.items()}
    if KIND not in item.value:
        asking = {option: required(option) for option in options if required(option)}
        asked = [option for option, keys in asking.items() if keys <= item.value.keys() and option not in is_open]
        has_default = type(default) in options or (is_open and isinstance(default, is_open[0]))
        if has_default and not (len(asked) == 1 and type(default) not in asked):
            return type(default)
        if len(options) == 1 and not is_open:
            return options[0]
        if len(asked) == 1:
            return asked[0]
        others = "".join(f"; or `{key}`" for keys in asking.values() for key in sorted(keys))
        fail(item, path, f"needs `kind`: one of {', '.join(builtin if is_open else named)}{others if is_open else ''}")
    chosen = item.value[KIND]
    name = chosen.value
    if not isinstance(name, str):
        expected(chosen, join(path, KIND), "the name of a class")
    if name in named and named[name] not in is_open:
        return named[name]
    target = builtin.get(name, name)
    if ":" not in target:
        closed = [name for name, option in named.items() if option not in is_open]
        known = [*builtin, *closed, "package.module:Class"] if is_open else closed
        fail(chosen, join(path, KIND), f"no such kind {name!r}; {suggest(name, known)}")
    cls = import_class(target, chosen, join(path, KIND))
    if not issubclass(cls, options):
        fail(chosen, join(path, KIND), f"{name} is not a {' or '.join(named)}")
    return cls


def import_class(target: str, item: Item, path: str) -> type:
    """Import the class at ``package.module:Class``."""
    module, _, name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        fail(item, path, f"cannot import {target}: {error}")
    if not is_section(cls):
        fail(item, path, f"{target} is not a dataclass or a linen module")
    return cls


def is_section(kind: Any) -> typing.TypeGuard[type]:
    """Whether an annotation is a class whose instances are sections."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def open_base(cls: type) -> Any:
    """Return ``cls`` or its base class with ``builtin_kinds``, which accepts any subclass in a config; None without one."""
    return next((base for base in cls.__mro__ if "builtin_kinds" in vars(base)), None)


# What a class declares


def list_kind(cls: type) -> tuple[str, str] | None:
    """Return the kind and key that a plain list stands for in place of a section of ``cls``; None if no list is accepted."""
    return getattr(cls, "list_kind", None) if open_base(cls) is cls else None


@functools.cache
def fields(cls: type) -> dict[str, dataclasses.Field]:
    """Return the fields that a config may set, by key; linen's ``parent`` and ``name`` are not hyper-parameters."""
    module = any(base.__module__.startswith("flax.linen") for base in cls.__mro__)
    own = [f for f in dataclasses.fields(cls) if f.init and not (module and f.name in ("parent", "name"))]
    return {f.name.removesuffix("_"): f for f in own}


def required(cls: type) -> set[str]:
    """Return the keys of fields without a default."""
    return {key for key, field in fields(cls).items() if default_of(field) is dataclasses.MISSING}


def default_of(field: dataclasses.Field) -> Any:
    """Return the default of a field, or ``dataclasses.MISSING``."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


@functools.cache
def field_types(cls: type) -> typing.Callable[[str], Any]:
    """Return a function from a field's name to its type; a type that cannot be resolved stays text."""
    found = {name: (kind, base) for base in reversed(cls.__mro__) for name, kind in inspect.get_annotations(base).items()}

    def resolve(name: str) -> Any:
        kind, base = found[name]
        try:
            return eval(kind, vars(sys.modules[base.__module__]), dict(vars(base))) if isinstance(kind, str) else kind
        except (NameError, SyntaxError):
            return kind

    return functools.cache(resolve)


def describe(kind: Any) -> str:
    """Name a type for readers of YAML: ``text`` for str."""
    if isinstance(kind, str):
        return kind
    if kind is Ellipsis:
        return "..."
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if isinstance(kind, type) and not typing.get_args(kind):
        return "text" if kind is str else kind.__name__
    return str(kind).replace("typing.", "")


def suggest(word: str, known: list[str]) -> str:
    """Write a remedy for an unknown word: the closest known one, or all of them."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(known)}"


def join(path: str, key: str) -> str:
    """Append a key to the path of a section."""
    return f"{path}.{key}" if path else key


# Writing


def to_plain(value: Any, kind: Any) -> Any:
    """Convert the value of a field with the annotation ``kind`` to plain values."""
    cls: type = type(value)
    if dataclasses.is_dataclass(cls):
        options = [x for x in (typing.get_args(kind) or (kind,)) if is_section(x)]
        named = {} if options == [cls] else {KIND: kind_name(cls, options)}
        kinds = {key: field_types(cls)(field.name) for key, field in fields(cls).items()}
        held = {key: getattr(value, field.name) for key, field in fields(cls).items()}
        # What a config cannot set is left out where it has its default; elsewhere it fails in the writer or in the reader.
        unset = [key for key, f in fields(cls).items() if isinstance(kinds[key], str) and held[key] is default_of(f)]
        return named | {key: to_plain(held[key], kinds[key]) for key in kinds if key not in unset}
    args = typing.get_args(kind)
    if isinstance(value, Mapping):
        inner = args[1] if len(args) == 2 else Any
        return {key: to_plain(child, inner) for key, child in value.items()}
    if isinstance(value, list | tuple):
        lists = [a for a in (kind, *args) if typing.get_origin(a) in (tuple, list, Sequence)]
        inner = typing.get_args(lists[0]) if lists else (Any,)
        each = inner if len(inner) == len(value) and inner[-1] is not Ellipsis else (inner[0],) * len(value)
        return [to_plain(child, k) for child, k in zip(value, each, strict=True)]
    return str(value) if isinstance(value, Path) else value


def kind_name(cls: type, options: list[type]) -> str:
    """Return the value of ``kind`` for a class: a key of ``builtin_kinds``, a class name or ``package.module:Class``."""
    base, target = open_base(cls), f"{cls.__module__}:{cls.__qualname__}"
    builtin = {} if base is None else base.builtin_kinds
    return next((name for name, known in builtin.items() if known == target), cls.__name__ if cls in options else target)
