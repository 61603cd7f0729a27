"""Pages of the public names of the package, for ``sphinx.ext.autodoc``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping

from equipot.site.docstrings import heading, inline, to_rest
from equipot.site.names import Name, docs_of, is_function, is_ours, public_modules, public_names

LONGEST = 90
"""Characters of the value of a constant that are shown."""
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Where an object stands in memory, in its default text: different in every run."""


def api_documents() -> dict[str, str]:
    """Return the pages of all public modules, by their file."""
    names = {module: public_names(module) for module in public_modules()}
    first = homes([name for found in names.values() for name in found])
    rows = [row for module in names for row in (f"   * - :doc:`{module} <{file_of(module)}>`", f"     - {first_line(module)}")]
    index = [*heading("Python", "="), "What scripts can rely on: the names that the modules declare as public.", ""]
    index += [".. list-table::", "   :widths: 35 65", "", *rows, "", ".. toctree::", "   :hidden:", ""]
    documents = {"api/index.rst": "\n".join([*index, *(f"   {file_of(module)}" for module in names), ""])}
    for module, found in names.items():
        documents[f"api/{file_of(module)}.rst"] = "\n".join(page(module, found, first))
    return documents


def file_of(module: str) -> str:
    """Return the name of the page of a module, without dots: Sphinx takes the end of ``equipot.md`` for that of a file."""
    return module.replace(".", "-")


def first_line(module: str) -> str:
    """Return the first sentence of the docstring of a module."""
    return inline((importlib.import_module(module).__doc__ or "").strip().partition("\n\n")[0].replace("\n", " "))


def homes(names: list[Name]) -> dict[tuple[str, str], Name]:
    """Return, by the place of its definition, the first of the names of each object: it gets the description."""
    first: dict[tuple[str, str], Name] = {}
    for name in names:
        first.setdefault(place(name), name)
    return first


def place(name: Name) -> tuple[str, str]:
    """Return the module and the name by which an object is defined."""
    defined = inspect.isclass(name.value) or is_function(name.value)
    return name.source, name.value.__qualname__ if defined else name.name


def page(module: str, names: list[Name], first: Mapping[tuple[str, str], Name]) -> list[str]:
    """Write the page of a module."""
    lines = [*heading(module, "="), f".. automodule:: {module}", "   :no-members:", ""]
    for name in names:
        home = first[place(name)]
        lines += described(name) if home == name else alias(name, home)
    return lines


def alias(name: Name, home: Name) -> list[str]:
    """Write the entry of a further name of an object."""
    return [*data(name), "", f"   The same as :py:obj:`{home.path}`.", ""]


def data(name: Name) -> list[str]:
    """Write the head of the directive of a value; the module that the page describes would be put before a whole path."""
    return [f".. py:data:: {name.name}", f"   :module: {name.path.removesuffix(f'.{name.name}')}"]


def described(name: Name) -> list[str]:
    """Write the directive that describes an object."""
    if inspect.isclass(name.value):
        kind = "exception" if issubclass(name.value, BaseException) else "class"
        bases = ["   :show-inheritance:"] if any(is_ours(base) for base in name.value.__bases__) else []
        calls = ["   :special-members: __call__"] if "__call__" in vars(name.value) else []
        return [f".. auto{kind}:: {name.path}", "   :members:", *bases, *calls, ""]
    if is_function(name.value):
        return [f".. autofunction:: {name.path}", ""]
    text = docs_of(name.source).get(name.name, "")
    lines = [*data(name), *value_of(name.value), ""]
    return [*lines, *(f"   {line}".rstrip() for line in to_rest(text.splitlines())), ""]


def value_of(value: object) -> list[str]:
    """Write the value of a constant, if it is short."""
    text = repr(value)
    return [f"   :value: {text}"] if len(text) <= LONGEST and not ADDRESS.search(text) and "\n" not in text else []
