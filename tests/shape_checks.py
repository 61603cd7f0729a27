"""The shapes that the package's annotations state, checked whenever a function is called or traced while the tests run.

An import hook like jaxtyping's own, for what has shapes only: that one checks every call of every function, which makes the
kernels' code generators several times slower, and asks of sizes and options what mypy knows already.
"""

from __future__ import annotations

import ast
import functools
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

PACKAGE = "equipot"
SHAPED = {"Bool", "Features", "Float", "Int", "Num", "UInt32"}
"""Names of jaxtyping in the package's annotations."""

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int is a float as well, as it is for mypy."""
check_function = jaxtyped(typechecker=check_types)


def check_fields(cls: type) -> type:
    """Check the fields of a dataclass when one is made, but for those that JAX makes.

    JAX rebuilds a pytree with anything in its fields: markers, shapes and shardings, or arrays with the axis of a batch before
    their own.
    """
    plain = cls.__init__
    checked = check_function(plain)

    @functools.wraps(plain)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        maker = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        (plain if maker in ("jax", "flax", "optax") else checked)(self, *args, **kwargs)

    cls.__init__ = __init__
    return cls


def has_shape(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(isinstance(node, ast.Name) and node.id in SHAPED for node in ast.walk(annotation))


class Decorate(ast.NodeTransformer):
    """Decorate the functions and dataclasses with shapes in their annotations."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        if has_shape(node.returns) or any(has_shape(argument.annotation) for argument in arguments if argument):
            # Innermost: what jit or custom_jvp make of a function is no function any more.
            node.decorator_list.append(_reference("check_function", node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        if is_dataclass and any(has_shape(field.annotation) for field in fields):
            node.decorator_list.insert(0, _reference("check_fields", node))
        return node


def _reference(name: str, near: ast.AST) -> ast.expr:
    expression = ast.parse(f"__import__('sys').modules[{__name__!r}].{name}", mode="eval").body
    for node in ast.walk(expression):
        ast.copy_location(node, near)
    return expression


class Loader(SourceFileLoader):
    """Compiles a decorated module; bytecode is neither read nor written."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = Decorate().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    """Finds the modules of the package."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Check what is imported from here on.

    Raises:
        RuntimeError: the package is there already.
    """
    if PACKAGE in sys.modules:
        raise RuntimeError(f"{PACKAGE} was imported before its shapes could be checked")
    sys.meta_path.insert(0, Finder())
