"""The extension of Sphinx that the pages of the site need: keys of configs, the form of docstrings, formulas."""

from __future__ import annotations

import ast
from typing import Any

import yaml
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.writers.html5 import HTML5Translator

from equipot.site.docstrings import to_rest

BEFORE_NAPOLEON = 400
"""Events of Sphinx are handled in the order of such numbers; those of ``sphinx.ext.napoleon`` have 500."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Install the extension."""
    app.add_object_type("setting", "setting", indextemplate="pair: %s; setting", parse_node=setting, objname="setting")
    app.add_html_math_renderer("mathml", inline_renderers=(formula, None), block_renderers=(formula, None))
    app.connect("autodoc-process-docstring", convert, priority=BEFORE_NAPOLEON)
    app.connect("doctree-read", name_languages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def setting(env: BuildEnvironment, text: str, signature: addnodes.desc_signature) -> str:
    """Fill the heading of a key, ``full.name key: type = default``; return the full name."""
    full, _, shown = text.partition(" ")
    key, _, rest = shown.partition(": ")
    kind, equals, default = rest.partition(" = ")
    signature += addnodes.desc_name(key, key)
    signature += addnodes.desc_annotation(f": {kind}", f": {kind}")
    if equals:
        signature += addnodes.desc_annotation(f" = {default}", f" = {default}", classes=["default"])
    return full


def formula(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers show by themselves, without a script from the network."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring in place to reStructuredText with Google's sections; drop what Python itself says of a field."""
    lines[:] = [] if lines and lines[0].startswith("Alias for field number") else to_rest(lines)


def name_languages(app: Sphinx, document: nodes.document) -> None:
    """Name the language of every indented block of code in Markdown, which MyST leaves without one."""
    for block in document.findall(nodes.literal_block):
        if block.get("language") == "none":
            block["language"] = language(block.astext())


def language(text: str) -> str:
    """Return the language of a block of code, as far as its form tells: Python, YAML, or else commands of a shell."""
    try:
        ast.parse(text)
    except SyntaxError:
        pass
    else:
        return "python"
    try:
        return "yaml" if isinstance(yaml.safe_load(text), dict) else "bash"
    except yaml.YAMLError:
        return "bash"
