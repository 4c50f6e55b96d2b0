"""Run all benchmarks, or the named ones, each in a process of its own."""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

EXAMPLES = """\
Options of a single benchmark go after its name: python -m benchmarks NAME --help

examples:
  python -m benchmarks
  python -m benchmarks training_step ops --quick
  python -m benchmarks --list
"""


def benchmarks() -> dict[str, str]:
    """First lines of the docstrings of all modules that define NAME, by that name."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text())
        if any(_defines_name(node) for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def _defines_name(node: ast.stmt) -> bool:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return any(isinstance(target, ast.Name) and target.id == "NAME" for target in targets)


def run(name: str, options: list[str]) -> int:
    """Run one benchmark in a process of its own, so that imports and memory do not mix."""
    path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    # Not `-m`: what a benchmark defines would belong to `__main__`, and the contenders' processes,
    # to which some of it is sent, have a `__main__` of their own.
    # Its first argument is what argparse takes for the program's name.
    code = f"import sys; sys.argv[0] = 'python -m benchmarks {name}'; "
    code += f"from benchmarks.{name} import main; main()"
    command = [sys.executable, "-c", code, *options]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status is 1 when a benchmark failed, 2 for a mistake in the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        usage="%(prog)s [NAME ...] [options]",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--list", action="store_true", help="print their names and what they do")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes, for a try")
    parser.add_argument("--rounds", metavar="N", type=int, help="timed calls of each contender")
    parser.add_argument("--out", metavar="FOLDER", help="for results (default: benchmarks/results)")
    parser.add_argument("-h", "--help", action="store_true", help="show this, or a benchmark's own")
    args, names, more = _parse(parser, sys.argv[1:] if argv is None else argv)
    known = benchmarks()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or [", ".join(known)]
            parser.error(f"unknown benchmark {name!r}; did you mean {near[0]}?")
    if more and len(names) != 1:
        parser.error(f"{more[0]}: only one benchmark, named, can take options of its own")
    if args.list:
        print("\n".join(f"{name:14} {line}" for name, line in known.items()))
        return 0
    if args.help and not names:
        parser.print_help()
        return 0
    options = _options(args) + more
    return _run_all(names or list(known), options)


def _parse(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Options, names, and what only the benchmark can understand."""
    count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    args, more = parser.parse_known_args(argv[count:])
    if count or any(word.startswith("-") for word in more):
        return args, argv[:count], more
    return args, more, []


def _options(args: argparse.Namespace) -> list[str]:
    options = ["--help"] if args.help else []
    options += ["--quick"] if args.quick else []
    options += ["--rounds", str(args.rounds)] if args.rounds is not None else []
    return options + (["--out", args.out] if args.out is not None else [])


def _run_all(names: list[str], options: list[str]) -> int:
    failed = []
    for name in names:
        if len(names) > 1:
            print(f"\n=== {name}", flush=True)
        started = time.perf_counter()
        if run(name, options):
            failed.append(name)
            print(f"benchmarks: {name} failed", file=sys.stderr, flush=True)
        elif len(names) > 1:
            print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    if failed and len(names) > 1:
        print(f"benchmarks: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
