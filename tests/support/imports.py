"""The imports between the modules of this repository, from their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPO = Path(__file__).parents[2]
Graph = Mapping[str, set[str]]


def modules(package: str) -> dict[str, Path]:
    """Return the path of each module of a package by its dotted name."""
    return {_name(path): path for path in sorted((REPO / package).rglob("*.py"))}


def imports(package: str) -> dict[str, set[str]]:
    """Return the names that each module imports, lazily or not. Imports for type checkers do not count.

    `from .a import b` gives the name of the package's module a.b if there is one, else that of a.
    """
    known = {*modules("acestep_core"), *modules("nodes"), *modules(package)}
    return {
        name: {
            target for node in _executed(ast.parse(path.read_text("utf-8"))) for target in _targets(node, path, known)
        }
        for name, path in modules(package).items()
    }


def within(graph: Graph) -> dict[str, set[str]]:
    """Return the graph without external modules and without loops."""
    return {name: {target for target in targets if target in graph} - {name} for name, targets in graph.items()}


def by_part(graph: Graph) -> dict[str, set[str]]:
    """Merge the modules of each folder directly below the package. A file beside these folders stands alone."""
    parts: dict[str, set[str]] = {}
    for name, targets in within(graph).items():
        parts.setdefault(_part(name), set()).update(_part(target) for target in targets)
    return within(parts)


def find_cycle(graph: Graph) -> str:
    """Return one cycle as text, or an empty string."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return ""


def _name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def _part(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, without the bodies of `if TYPE_CHECKING`."""
    yield node
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in node.orelse if typing_only else ast.iter_child_nodes(node):
        yield from _executed(child)


def _targets(node: ast.AST, path: Path, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        folder = path.relative_to(REPO).parent.parts
        parts = [*folder[: len(folder) - node.level + 1]] if node.level else []
        origin = ".".join(parts + (node.module.split(".") if node.module else []))
        yield from (f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in known else origin for alias in node.names)
