"""Pages of the keys of configs, in reStructuredText."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from equipot import config
from equipot.site.docstrings import heading, inline, to_rest
from equipot.site.names import field_doc, is_ours
from equipot.site.settings import Root, default_text, described, is_open, kinds, pages, sections_of, types_of

INTRODUCTION = """\
Every key of every config, with its type, its default and its meaning; a key without a default must be given. The keys are the
fields of frozen dataclasses: ``training.epochs`` of a config is ``TrainingConfig(epochs=...)`` in Python, and
``--set training.epochs=100`` on a command line. Where a key takes one of several classes, ``kind`` chooses:
``optimizer: {kind: AdamW, learning_rate: 0.005}``, or just ``optimizer: AdamW``. ``null`` is Python's ``None``, ``{}`` a
section with all its defaults.
"""


def full_name(cls: type) -> str:
    """Return the dotted path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def label(cls: type) -> str:
    """Return the label of the section that describes a class."""
    return f"settings-{full_name(cls)}"


def link(cls: type, text: str = "") -> str:
    """Write a link to the description of a class."""
    return f":ref:`{text or cls.__name__} <{label(cls)}>`"


def settings_documents() -> dict[str, str]:
    """Return the pages of all settings, by their file."""
    found = pages()
    contents = [".. toctree::", "   :maxdepth: 1", "", *(f"   {root.slug}" for root, _ in found)]
    documents = {"settings/index.rst": "\n".join([*heading("Settings", "="), INTRODUCTION, *contents, ""])}
    users = used_by([cls for _, classes in found for cls in classes])
    for root, classes in found:
        documents[f"settings/{root.slug}.rst"] = "\n".join(page(root, classes, users))
    return documents


def used_by(classes: list[type]) -> dict[type, list[str]]:
    """Return the keys that take a class, or one of its subclasses by ``kind``, as links."""
    users: dict[type, list[str]] = {}
    for cls in classes:
        for key, annotation in () if is_open(cls) else types_of(cls).items():
            for section in sections_of(annotation):
                users.setdefault(section, []).append(f"``{key}`` of {link(cls)}")
    return users


def page(root: Root, classes: list[type], users: Mapping[type, list[str]]) -> list[str]:
    """Write the page of a section and of all that is described with it."""
    lines = [*heading(root.title, "="), *to_rest([root.use])]
    if left := [cls for cls in root.classes if cls not in classes]:
        lines += [f"Its keys are those of {', '.join(map(link, left))}.", ""]
    for cls in classes:
        lines += [f".. _{label(cls)}:", "", *heading(cls.__name__, "-")]
        lines += [*summary(cls), *(choices(cls) if is_open(cls) else keys(cls))]
        if cls in users:
            lines += [f"Used by: {', '.join(users[cls])}.", ""]
    return lines


def summary(cls: type) -> list[str]:
    """Write the docstring of a class as reStructuredText, without the errors that it raises."""
    text = inspect.cleandoc(cls.__doc__ or "") if is_ours(cls) else ""
    return to_rest(text.partition("\nRaises:")[0].splitlines())


def choices(base: type) -> list[str]:
    """Write the values of ``kind`` of a class that stands for its subclasses."""
    named = [f"- {link(cls, name)}" for name, cls in kinds(base).items()]
    return ["``kind`` is one of", "", *named, "- ``package.module:Class``, a class of your own", ""]


def keys(cls: type) -> list[str]:
    """Write the keys of a section."""
    lines = []
    for key, field in config.fields(cls).items():
        annotation, default = types_of(cls)[key], default_text(cls, key)
        shown = f"{key}: {described(annotation)}" + (f" = {default}" if default else "")
        text = field_doc(cls, field.name).replace("\n", " ")
        lines += [f".. setting:: {full_name(cls)}.{key} {shown}", "", f"   {inline(text)}", ""]
        if sections := [section for section in dict.fromkeys(sections_of(annotation)) if section is not cls]:
            lines += [f"   See {', '.join(map(link, sections))}.", ""]
    return lines
