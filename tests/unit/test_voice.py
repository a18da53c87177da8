"""Docstrings, words and names follow the style that CONTRIBUTING.md describes."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imports import REPO, modules

PACKAGES = ["acestep_core", "nodes", "benchmarks", "training", "tools"]
# A docstring starts with a verb or a noun phrase.
RELATIVE = re.compile(r"(What|Where|Who|Whose|Whom|Whether|Which|How|Of|That|Those|All)\b")
# Words that readers do not know from PyTorch, diffusers or ComfyUI.
PRIVATE = re.compile(
    r"(?<![\"'`])\b(anew|be it|besides|courier|dice|nobody|unheard|main memory|machine's memory|cards of \w+'s)\b",
    re.IGNORECASE,
)
NAMES = {"told", "said", "heard", "kept", "made", "dice"}


def files(folder: str, *suffixes: str) -> list[Path]:
    """Return the files of a folder with one of these suffixes."""
    return sorted(path for path in (REPO / folder).rglob("*") if path.suffix in suffixes)


TEXTS = [
    *(path for package in PACKAGES for path in files(package, ".py", ".md")),
    *(path for folder in ("docs", "web") for path in files(folder, ".py", ".md", ".js")),
    *(path for folder in ("locales/en", "workflows") for path in files(folder, ".json")),
    *(path for path in REPO.glob("*.md") if path.name != "CONTRIBUTING.md"),  # lists the words
]


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each docstring."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield f"{path.relative_to(REPO)}:{getattr(node, 'lineno', 1)}", text


def defined_name(node: ast.AST) -> str | None:
    """Return the name that a node defines, if it defines one."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return node.arg if isinstance(node, ast.arg) else getattr(node, "name", None)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_start_with_a_verb_or_a_noun(package):
    starts = [
        f"{place}: {text.splitlines()[0]}"
        for path in modules(package).values()
        for place, text in docstrings(path)
        if RELATIVE.match(text)
    ]
    assert not starts, "\n".join(starts)


def test_texts_have_no_private_words():
    found = [
        f"{path.relative_to(REPO)}:{number}: {match[0]}"
        for path in TEXTS
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for match in PRIVATE.finditer(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_variables_and_functions_have_no_private_names(package):
    found = [
        f"{path.relative_to(REPO)}:{node.lineno}: {name}"
        for path in modules(package).values()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (name := defined_name(node)) in NAMES
    ]
    assert not found, "\n".join(found)


def test_public_names_of_the_core_are_unique():
    places = defaultdict(list)
    for name, path in modules("acestep_core").items():
        if path.stem != "__init__":
            places["module", path.stem.lower()].append(name)
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                places["object", node.name.lower()].append(f"{name}.{node.name}")
    shared = [" and ".join(names) for names in places.values() if len(names) > 1]
    assert not shared, "\n".join(shared)
