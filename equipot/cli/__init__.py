"""The command line: ``main(argv)`` runs one command and returns its exit code.

Exit codes: 0 done; 1 the run failed (a simulation exploded, a loss is not finite, the doctor found a defect); 2 an error in the
input; 130 interrupted by Ctrl-C; 143 terminated by SIGTERM.
Importing this package is light: the modules of a command, JAX included, are imported when the command runs.
"""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from equipot.allocator import keep_freed_memory
from equipot.cli.parser import parser

REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, then continue with --resume",
    errno.EDQUOT: "your disk quota is used up: free some space, then continue with --resume",
    errno.EACCES: "check its permissions",
    errno.ENOENT: "check the path",
    errno.EISDIR: "give a file, not a folder",
}

DEFECT = "this is a defect of equipot; please report it with the lines above"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``equipot ARGV`` and return the exit code; errors become one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser().parse_args(argv)
    except SystemExit as done:
        return int(done.code or 0)
    debug = args.debug or bool(os.environ.get("EQUIPOT_DEBUG"))
    try:
        command = importlib.import_module(f"equipot.cli.{args.module}")
        return command.execute(args) or 0
    except (KeyboardInterrupt, SystemExit) as stop:
        if debug:
            traceback.print_exc()
        print(f"\nequipot: interrupted{remedy_of_interrupt(args, argv)}", file=sys.stderr)
        return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
    except BrokenPipeError:
        # The reader of our output left (as `| head` does): stop without a word, and keep Python's last flush from failing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line, code = explain(error)
        if debug or line is None:
            traceback.print_exc()
        print(f"equipot: error: {line or DEFECT}", file=sys.stderr)
        return code


def entry() -> None:
    """Run the program ``equipot``; SIGTERM stops the program as Ctrl-C does, at the next safe point."""
    signal.signal(signal.SIGTERM, interrupt)
    keep_freed_memory()
    # XLA reports as an error, each time that a function comes from the cache, tuning flags that no processor has.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal by ``SystemExit`` with the shell's exit code."""
    raise SystemExit(128 + number)


def remedy_of_interrupt(args: object, argv: list[str]) -> str:
    """Write the command that resumes the work; empty for a command that cannot resume."""
    if "resume" not in vars(args):
        return ""
    again = argv if vars(args)["resume"] else [*argv, "--resume"]
    return f"; continue with: {shlex.join(['equipot', *again])}"


def explain(error: Exception) -> tuple[str | None, int]:
    """Return one line for the user and the exit code; the line is None for a defect of equipot."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory; use smaller batches (--set training.batch_size=1), fewer atoms or a smaller model", 1
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("equipot"):
        return f"this needs the package {error.name}: pip install {error.name}", 2
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        # A message of our own, instead of the system's, brings its remedy.
        system = error.strerror == os.strerror(error.errno)
        remedy = f"; {REMEDIES[error.errno]}" if system and error.errno in REMEDIES else ""
        return f"{error.strerror}{where}{remedy}", 2
    if isinstance(error, ValueError | OSError):
        return one_line(str(error)) or type(error).__name__, 2
    if isinstance(error, RuntimeError) and type(error).__module__.startswith("equipot."):
        return one_line(str(error)), 1
    return None, 1


def one_line(message: str) -> str:
    """Shorten a message to one line; a list of problems to the first one and their number."""
    lines = [line.strip() for line in message.splitlines()]
    if len(lines) > 2 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]} (the first of {len(lines) - 1}; `equipot data FILE` shows all)"
    return " ".join(message.split())
