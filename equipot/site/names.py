"""The public names of the package, and the docstrings of constants and fields.

A module is public if it declares ``__all__``; what this list holds is documented, and is what scripts may rely on.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equipot

PACKAGE = Path(equipot.__file__).parent


@dataclass(frozen=True)
class Name:
    """A public name."""

    module: str
    """Public module that declares the name."""
    name: str
    """The name itself."""
    value: Any
    """The object that the name stands for."""
    source: str
    """Module in which the object is defined."""

    @property
    def path(self) -> str:
        """Dotted path of the name, such as ``equipot.workflows.relax.RelaxConfig``."""
        return f"{self.module}.{self.name}"


def dotted(file: Path) -> str:
    """Return the module that a file of the package holds."""
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def parsed(module: str) -> ast.Module:
    """Return the syntax tree of a module of the package."""
    file = PACKAGE.parent.joinpath(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def assigned(node: ast.stmt) -> list[str]:
    """Return the names that a statement assigns."""
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    return [target.id for target in node.targets if isinstance(target, ast.Name)] if isinstance(node, ast.Assign) else []


def public_modules() -> list[str]:
    """Return the modules that declare ``__all__``, those of the upper levels first."""
    found = [dotted(file) for file in PACKAGE.rglob("*.py")]
    public = [module for module in found if any("__all__" in assigned(node) for node in parsed(module).body)]
    return sorted(public, key=lambda module: (module.count("."), module))


def public_names(module: str) -> list[Name]:
    """Return the names in ``__all__`` of a module, in alphabetical order.

    Raises:
        AttributeError: ``__all__`` holds a name that the module lacks.
    """
    loaded = importlib.import_module(module)
    return [
        Name(module, name, getattr(loaded, name), source_of(module, name)) for name in sorted(loaded.__all__, key=str.casefold)
    ]


def source_of(module: str, name: str) -> str:
    """Return the module that defines a name: that of a class or function, else the one at the end of the imports."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or is_function(value):
        return value.__module__
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("equipot"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return source_of(node.module, alias.name)
    return module


@functools.cache
def docs_of(module: str) -> dict[str, str]:
    """Return the docstrings below constants of a module (``NAME``) and below fields of its classes (``Class.field``)."""
    classes = [node for node in parsed(module).body if isinstance(node, ast.ClassDef)]
    fields = [docs_in(node, f"{node.name}.") for node in classes]
    return {key: text for found in [docs_in(parsed(module), ""), *fields] for key, text in found.items()}


def docs_in(node: ast.Module | ast.ClassDef, prefix: str) -> dict[str, str]:
    """Return the strings that follow assignments in a body, by the names that are assigned."""
    found: dict[str, str] = {}
    for before, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found |= {prefix + name: inspect.cleandoc(after.value.value) for name in assigned(before)}
    return found


def field_doc(cls: type, field: str) -> str:
    """Return the docstring below a field, in the class or in the base that declares it; empty where there is none."""
    found = (docs_of(base.__module__).get(f"{base.__name__}.{field}") for base in cls.__mro__ if is_ours(base))
    return next((text for text in found if text), "")


def is_function(value: Any) -> bool:
    """Whether an object is a function, one that JAX compiles included."""
    return inspect.isroutine(value) or (callable(value) and hasattr(value, "__wrapped__"))


def is_ours(cls: type) -> bool:
    """Whether a class is defined in the package."""
    return cls.__module__.split(".")[0] == "equipot"
