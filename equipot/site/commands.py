"""Pages of the command line, from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from equipot.cli.parser import parser
from equipot.site.docstrings import heading, inline

WIDTH = 100
"""Columns of the lines of usage."""


def command_documents(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the pages of all commands, with every argument and option, by their file.

    Args:
        settings: name of the page of settings that ``--set`` of a command reaches, by the command.
    """
    top = parser()
    pages = {slug(command): command for command in subcommands(top)}
    contents = [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in pages), ""]
    table = [line for name, command in pages.items() for line in row(name, command)]
    index = [*heading("Commands", "="), inline(top.description or ""), "", ".. program:: equipot", "", *block(usage(top))]
    index += [*arguments(top), ".. list-table::", "   :widths: 25 75", "", *table, "", *block(top.epilog or ""), *contents]
    documents = {"commands/index.rst": "\n".join(index)}
    for name, command in pages.items():
        lines = described(command)
        if name in settings:
            lines += [f"The keys of ``--set`` and of configs: :doc:`/settings/{settings[name]}`.", ""]
        documents[f"commands/{name}.rst"] = "\n".join(lines)
    return documents


def slug(command: argparse.ArgumentParser) -> str:
    """Return the name of the page of a command."""
    return command.prog.removeprefix("equipot ").replace(" ", "-")


def row(name: str, command: argparse.ArgumentParser) -> list[str]:
    """Write the row of a command in the table of commands."""
    return [f"   * - :doc:`{command.prog} <{name}>`", f"     - {inline(command.description or '')}"]


def subcommands(top: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of the commands below a parser, in the order of their declaration."""
    groups = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    # Aliases of a command name its parser once more.
    return list(dict.fromkeys(command for group in groups for command in group.choices.values()))


def described(command: argparse.ArgumentParser, line: str = "=") -> list[str]:
    """Write the description of a command and of the commands below it."""
    lines = [f".. _command-{command.prog.replace(' ', '-')}:", "", *heading(command.prog, line)]
    lines += [inline(command.description or ""), "", f".. program:: {command.prog}", ""]
    lines += [*block(usage(command)), *arguments(command)]
    if command.epilog:
        lines += block(command.epilog)
    return [*lines, *(text for below in subcommands(command) for text in described(below, "-"))]


def usage(command: argparse.ArgumentParser) -> str:
    """Return the line of usage, whatever the width of the terminal is."""
    formatter = argparse.HelpFormatter(command.prog, width=WIDTH)
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups, prefix="")
    return formatter.format_help()


def block(text: str) -> list[str]:
    """Write a text that keeps its lines; nothing for an empty text."""
    return (
        []
        if not text.strip()
        else [".. code-block:: text", "", *(f"   {line}".rstrip() for line in text.strip("\n").splitlines()), ""]
    )


def arguments(command: argparse.ArgumentParser) -> list[str]:
    """Write the arguments and options of a command."""
    lines = []
    for action in command._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        values = value_of(action)
        names = [f"{name} {values}".strip() for name in action.option_strings] or [values]
        lines += [f".. option:: {', '.join(names)}", "", f"   {inline(help_of(action))}", ""]
        if action.choices and action.metavar:
            lines += [f"   One of {', '.join(f'``{choice}``' for choice in action.choices)}.", ""]
    return lines


def help_of(action: argparse.Action) -> str:
    """Return the help of an argument, with its defaults filled in."""
    return (action.help or "") % {"default": action.default, "metavar": action.metavar, "dest": action.dest}


def value_of(action: argparse.Action) -> str:
    """Return what follows an option, or stands for an argument, in a line of usage."""
    if action.nargs == 0:
        return ""
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
    name = str(action.metavar or choices or action.dest.upper())
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)
