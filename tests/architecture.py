"""Reads the sources of a package and says where they leave the layers (docs/decisions.md).

Inside a folder a file imports only from files listed before it; the list is the order of the
imports in the folder's `__init__.py` (so ruff does not sort those).

The rules are functions from a `Package` to a list of sentences, so that they can be tried on a
made-up package as well as on the real one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# From the bottom to the top; a file imports only from rows below its own.
# The two of one row are siblings: neither imports the other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("backend", "threads"),
    ("ops",),
    ("tensor",),
    ("functional",),
    ("optim", "data"),
    ("nn",),
    ("models",),
    ("compress",),
    ("check",),
    ("weights",),
    ("explain",),
    ("train",),
    ("cli",),
)
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}

OPTIONAL = {"PIL", "matplotlib", "tqdm", "cupy", "safetensors", "mpi4py"}
REQUIRED = {"numpy"} | set(sys.stdlib_module_names)

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_LINE_LENGTH = 100
MAX_ARGUMENTS = 8

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Import:
    """One imported name: the dotted path it stands for, and where it is written."""

    name: Parts
    line: int
    in_function: bool
    for_types_only: bool


@dataclass(frozen=True)
class Source:
    """One file; `parts` is its module's path below the package, () for the package itself."""

    label: str
    parts: Parts
    is_folder: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.label)


class Package:
    """The sources of the package in folder `root`."""

    def __init__(self, root: Path) -> None:
        self.name = root.name
        self.sources: dict[Parts, Source] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_folder = parts[-1] == "__init__"
            parts = parts[:-1] if is_folder else parts
            label = path.relative_to(root.parent).as_posix()
            self.sources[parts] = Source(label, parts, is_folder, path.read_text("utf-8"))

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources.values())

    def imports(self, source: Source) -> Iterator[Import]:
        """Every name that `source` imports, with relative imports made absolute."""
        for node, in_function, types_only in _walk(source.tree, False, False):
            names: list[Parts] = []
            if isinstance(node, ast.Import):
                names = [tuple(alias.name.split(".")) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = tuple(node.module.split(".")) if node.module else ()
                if node.level:
                    up = node.level - source.is_folder
                    base = (self.name, *source.parts[: len(source.parts) - up], *base)
                names = [(*base, alias.name) for alias in node.names]
            for name in names:
                yield Import(name, node.lineno, in_function, types_only)

    def target(self, name: Parts) -> Parts | None:
        """The module of this package that holds `name`; None where it is another package's."""
        if name[0] != self.name:
            return None
        parts = name[1:]
        while parts not in self.sources and parts:
            parts = parts[:-1]
        return parts

    def order(self, folder: Parts) -> list[str]:
        """The modules of `folder` in the order in which its `__init__.py` imports them."""
        init = self.sources.get(folder)
        found: list[str] = []
        for entry in self.imports(init) if init else ():
            target = self.target(entry.name)
            if target is not None and len(target) > len(folder) and target[: len(folder)] == folder:
                child = target[len(folder)]
                if child not in found:
                    found.append(child)
        return found


def _walk(
    node: ast.AST, in_function: bool, types_only: bool
) -> Iterator[tuple[ast.stmt, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = types_only or (
            isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        )
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside, typing
        yield from _walk(child, inside, typing)


def imports_that_do_not_go_down(package: Package) -> list[str]:
    """Imports from the same row or from above. A total order of files also rules out cycles."""
    faults = []
    for source in package:
        if source.parts in {(), ("__main__",)}:
            continue  # these two sit on top of everything
        for entry in package.imports(source):
            target = package.target(entry.name)
            reason = None if target is None else _why_not(package, source, target)
            if reason:
                faults.append(
                    f"{source.label}:{entry.line} imports {'.'.join(entry.name)}: {reason}"
                )
    return faults


def _why_not(package: Package, source: Source, target: Parts) -> str | None:
    if target in {(), ("__main__",)}:
        return f"{package.name} itself sits on top of every layer"
    own, other = source.parts[0], target[0]
    if missing := [name for name in (own, other) if name not in ROW]:
        return f"{missing[0]!r} is in no layer of tests/architecture.py"
    if own != other:
        return None if ROW[other] < ROW[own] else f"{other!r} is not below {own!r}"
    shared = 0
    while source.parts[: shared + 1] == target[: shared + 1] and shared < len(target):
        shared += 1
    if source.is_folder and shared == len(source.parts) < len(target):
        return None  # a folder's __init__.py gathers what is in it
    if shared == len(target):
        return "a file does not import the folder that it lies in"
    folder = source.parts[:shared]
    order = package.order(folder)
    here, there = source.parts[shared], target[shared]
    if there not in order:
        return f"{'/'.join(folder)}/__init__.py does not list {there!r}"
    if here in order and order.index(here) < order.index(there):
        return f"{'/'.join(folder)}/__init__.py lists {there!r} after {here!r}"
    return None


def imports_out_of_place(package: Package) -> list[str]:
    """Optional packages outside a function, anything else inside one, strangers anywhere."""
    faults = []
    for source in package:
        for entry in package.imports(source):
            top = entry.name[0]
            label = f"{source.label}:{entry.line} imports {'.'.join(entry.name)}"
            if entry.in_function and top not in OPTIONAL:
                faults.append(f"{label} inside a function")
            elif top in OPTIONAL and not (entry.in_function or entry.for_types_only):
                faults.append(f"{label} when it is loaded; use backend.require where it is needed")
            elif top not in {package.name, "__future__"} | REQUIRED | OPTIONAL:
                faults.append(f"{label}, which is no dependency of the package")
        if source.parts not in {(), ("backend",)}:  # the package loads its own parts when used
            faults += [
                f"{source.label}:{node.lineno} imports by name; only backend.require does that"
                for node in ast.walk(source.tree)
                if (isinstance(node, ast.Attribute) and node.attr == "import_module")
                or (isinstance(node, ast.Name) and node.id in {"import_module", "__import__"})
            ]
    return faults


def array_libraries_named_in_ops(package: Package) -> list[str]:
    """Uses of np, numpy or cupy in ops, which ask `array_module(x)` instead; cupyx is as bad."""
    banned = {"np", "numpy", "cp"}

    def names_one(word: str) -> bool:
        top = word.partition(".")[0]
        return top in banned or top.startswith("cupy")

    faults = []
    for source in package:
        if source.parts[:1] != ("ops",):
            continue
        lines = {e.line for e in package.imports(source) if names_one(e.name[0])}
        lines |= {
            node.lineno
            for node in ast.walk(source.tree)
            if (isinstance(node, ast.Name) and names_one(node.id))
            or (isinstance(node, ast.Constant) and _is_module(node.value, names_one))
        }
        faults += [f"{source.label}:{line} names an array library" for line in sorted(lines)]
    return faults


def _is_module(value: object, names_one: Callable[[str], bool]) -> bool:
    """Whether a constant is the dotted name of a module that `names_one` knows."""
    is_dotted = isinstance(value, str) and all(part.isidentifier() for part in value.split("."))
    return is_dotted and names_one(str(value))


def asserts(package: Package) -> list[str]:
    """Assert statements: a user's mistake deserves an exception that Python -O keeps."""
    return [
        f"{source.label}:{node.lineno} asserts"
        for source in package
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assert)
    ]


def sizes(package: Package, many_arguments: dict[str, str]) -> list[str]:
    """Files, functions, lines and argument lists that are too long.

    `many_arguments` maps "file:function" to the reason why it may take more; what stands after
    the first `MAX_ARGUMENTS` must then be keyword-only.
    """
    faults, excused = [], set()
    for source in package:
        lines = source.text.splitlines()
        if len(lines) > MAX_FILE_LINES:
            faults.append(f"{source.label} has {len(lines)} lines")
        faults += [
            f"{source.label}:{number} has {len(line)} columns"
            for number, line in enumerate(lines, 1)
            if len(line) > MAX_LINE_LENGTH
        ]
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            label = f"{source.label}:{node.name}"
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                faults.append(f"{label} has {length} lines")
            positional = [a.arg for a in node.args.posonlyargs + node.args.args]
            positional = positional[positional[:1] in (["self"], ["cls"]) :]
            count = len(positional) + len(node.args.kwonlyargs)
            if count > MAX_ARGUMENTS:
                excused.add(label)
                if label not in many_arguments or len(positional) > MAX_ARGUMENTS:
                    faults.append(f"{label} has {count} arguments")
    faults += [f"{label} needs no exception" for label in sorted(set(many_arguments) - excused)]
    return faults
