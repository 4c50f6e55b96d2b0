"""The program: which command, and what becomes of its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType

from numpyvit.backend import suggest
from numpyvit.cli import (
    attention,
    bench,
    convert,
    errors,
    evaluate,
    features,
    inspect,
    models,
    parsing,
    predict,
    recipes,
    train,
)

ABOUT = """\
A Vision Transformer in plain NumPy: train one, test it, use it, look inside.

Results go to stdout, progress to stderr. `numpyvit COMMAND --help` says more
about a command and ends with examples."""

ENVIRONMENT = """\
environment variables:
  NUMPYVIT_CACHE        folder for downloads (default: ~/.cache/numpyvit)
  NUMPYVIT_TRACEBACK    set to 1, an error shows where in the program it arose

example:
  numpyvit train"""

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "attention": attention,
    "features": features,
    "inspect": inspect,
    "convert": convert,
    "models": models,
    "recipes": recipes,
    "bench": bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the program's own) and return the exit status.

    0 for success, 1 for an error, 2 for a command line that makes no sense, 130 when interrupted.
    """
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except SystemExit as leave:  # from argparse: 0 after --help, 2 after a mistake
        return leave.code if isinstance(leave.code, int) else errors.FAILURE
    except KeyboardInterrupt:
        print("numpyvit: interrupted", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has left. What is still buffered must go nowhere at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.FAILURE
    except errors.UsageError as error:
        errors.report(str(error))
        return errors.USAGE
    except errors.MISTAKES as error:
        if os.environ.get("NUMPYVIT_TRACEBACK"):
            raise
        errors.report(errors.describe(error))
        return errors.FAILURE


def _run(argv: list[str]) -> int:
    parser = _parser()
    command = next((word for word in argv if not word.startswith("-")), None)
    if not argv:
        parser.print_help(sys.stderr)
        return errors.USAGE
    if command is not None and command not in COMMANDS:
        parser.error(f"unknown command {command!r}; {suggest(command, COMMANDS)}")
    args = parser.parse_args(argv)
    if command is None:
        parser.error(f"expected a command; known: {', '.join(COMMANDS)}")
    status: int = args.run(args)
    return status


def _parser() -> parsing.Parser:
    parser = parsing.Parser(
        prog="numpyvit",
        description=ABOUT,
        epilog=ENVIRONMENT,
        formatter_class=parsing.Help,
        allow_abbrev=False,
    )
    # The package sits on top of every layer, so it cannot be imported here; but it is loaded.
    version = sys.modules["numpyvit"].__version__
    parser.add_argument("-V", "--version", action="version", version=f"numpyvit {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in COMMANDS.values():
        module.add_parser(commands)
    return parser
