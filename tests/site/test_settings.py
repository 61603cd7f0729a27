"""The reference of configs: nothing is missing, nothing is without words. No Sphinx is needed."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from equipot import config
from equipot.site import settings
from equipot.site.names import PACKAGE, dotted, field_doc, parsed, public_modules, public_names
from equipot.site.settings_pages import full_name, settings_documents

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [cls for _, classes in settings.pages() for cls in classes]
SECTIONS = [cls for cls in CLASSES if not settings.is_open(cls)]


@pytest.fixture(scope="module")
def documents():
    return settings_documents()


def calls_of_the_reader() -> set[str]:
    """Names of the classes that the package reads from configs: first or second argument of ``config.build`` and ``load``."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(parsed(dotted(file))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("config.build", "config.load"):
                named = [arg.id for arg in node.args[:2] if isinstance(arg, ast.Name)]
                found |= {name for name in named if name[0].isupper()}
    return found


def bases_with_kinds() -> list[tuple[str, str]]:
    """Module and class of every base whose subclasses a config can choose by ``kind``."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in parsed(dotted(file)).body:
            if isinstance(node, ast.ClassDef) and any("builtin_kinds: ClassVar" in ast.unparse(x) for x in node.body):
                found.append((dotted(file), node.name))
    return found


def test_whatever_the_package_reads_is_described():
    names = {cls.__name__ for cls in CLASSES}
    assert calls_of_the_reader() - names == INTERNAL
    for module, name in bases_with_kinds():
        base = getattr(importlib.import_module(module), name)
        assert base in CLASSES, f"{module}.{name} can be chosen by `kind`, but no page reaches it"
        assert set(settings.kinds(base).values()) <= set(CLASSES)


INTERNAL: set[str] = set()
"""Classes that are read from files of the package's own only."""


@pytest.mark.parametrize("cls", SECTIONS, ids=full_name)
def test_every_key_has_a_line_of_words(cls, documents):
    whole = "\n".join(documents.values())
    for key, field in config.fields(cls).items():
        assert field_doc(cls, field.name), f"{full_name(cls)}.{field.name} has no docstring below it"
        assert f".. setting:: {full_name(cls)}.{key} " in whole
    assert (cls.__doc__ or "").strip() and not (cls.__doc__ or "").startswith(f"{cls.__name__}("), (
        f"{full_name(cls)}: no docstring"
    )


def test_every_key_of_every_recipe_is_described(documents):
    described = set(re.findall(r"^\.\. setting:: [\w.]+\.(\w+) ", "\n".join(documents.values()), re.MULTILINE))

    def keys(value) -> set[str]:
        if isinstance(value, dict):
            # What stands below `subtract` are options of another program.
            return set(value) | {key for name, child in value.items() if name != "subtract" for key in keys(child)}
        return {key for child in value for key in keys(child)} if isinstance(value, list) else set()

    for recipe in sorted((ROOT / "configs").glob("*.yaml")):
        unknown = keys(yaml.safe_load(recipe.read_text(encoding="utf-8"))) - described - {"kind"}
        # Names of quantities are keys of mappings.
        assert unknown <= {"energy", "forces", "stress", "dipole", "charges", "polarizability"}, recipe.name


def test_types_and_defaults_are_as_in_a_config():
    from equipot.md.config import MDConfig
    from equipot.training.config import TrainingConfig
    from equipot.workflows.relax.config import RelaxConfig

    shown = lambda cls, key: (settings.described(settings.types_of(cls)[key]), settings.default_text(cls, key))
    assert shown(RelaxConfig, "cell") == ("fixed | isotropic | shape | full", "fixed")
    assert shown(RelaxConfig, "stress_GPa") == ("list of number | null", "null")
    assert shown(RelaxConfig, "optimizer")[1] == "LBFGS"
    assert shown(RelaxConfig, "symmetry") == ("true | false", "true")
    assert shown(MDConfig, "repeat") == ("[integer, integer, integer]", "[1, 1, 1]")
    assert shown(MDConfig, "model") == ("text", "")
    assert shown(TrainingConfig, "clip") == ("number | null", "10.0")


@pytest.mark.parametrize("cls", [cls for cls in SECTIONS if settings.whole(cls) is not None], ids=full_name)
def test_defaults_read_back(cls):
    """The reader makes of the text of a default what is the default."""
    for key, field in config.fields(cls).items():
        if isinstance(settings.types_of(cls)[key], str):
            continue
        text = settings.default_text(cls, key)
        read = getattr(config.build(cls, {key: yaml.safe_load(text)}), field.name)
        assert read == getattr(cls(), field.name), f"{full_name(cls)}.{key} = {text}"


def told() -> set[tuple[str, str]]:
    """Module and name of everything that the texts for users import from the package."""
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "notebooks").glob("*.py")]
    found = set()
    for text in texts:
        for module, names in re.findall(
            r"^ *from (equipot[\w.]*) import ([\w, ]+)", text.read_text(encoding="utf-8"), re.MULTILINE
        ):
            found |= {(module, name.split(" as ")[0].strip()) for name in names.split("#")[0].split(",")}
    return found


def test_what_users_are_told_to_import_is_public():
    public = {(module, name.name) for module in public_modules() for name in public_names(module)}
    modules = set(public_modules())
    assert len(told()) > 10
    for module, name in told():
        assert (module, name) in public or f"{module}.{name}" in modules, f"{name} is not in `__all__` of {module}"
