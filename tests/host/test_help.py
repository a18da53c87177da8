"""Every node has a help page in each language, and translations of its current schema."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.comfyui import find_comfyui

from .graph import widget_names
from .server import REPO, ComfyServer

DOCS = REPO / "web" / "docs"
TYPICAL = {"en": "*Typical:* ", "ja": "*通常*：", "zh": "*常用*："}
EXAMPLES = re.compile("Example workflows?: |サンプルワークフロー：|示例工作流：")
LANGUAGES = {"en": "{node}.md", "ja": "{node}/ja.md", "zh": "{node}/zh.md"}


def our_nodes(server: ComfyServer) -> dict[str, dict]:
    return {name: info for name, info in server.object_info().items() if name.startswith("AS15_")}


def read_pages(language: str, nodes: dict[str, dict]) -> dict[str, str]:
    return {node: (DOCS / LANGUAGES[language].format(node=node)).read_text("utf-8") for node in nodes}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_names_every_input_and_output_of_its_node(server: ComfyServer, language: str) -> None:
    nodes = our_nodes(server)
    for node, page in read_pages(language, nodes).items():
        order = nodes[node]["input_order"]
        inputs = order.get("required", []) + order.get("optional", [])
        rows = re.findall(r"^\| .*?`(\w+)` \|", page, re.MULTILINE)
        assert rows == inputs + nodes[node]["output_name"], node


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_gives_a_typical_value_for_every_widget(server: ComfyServer, language: str) -> None:
    nodes = our_nodes(server)
    without = [
        (node, name)
        for node, page in read_pages(language, nodes).items()
        for name in filter(None, widget_names(nodes[node]))
        if not re.search(rf"^\| .*?`{name}` \| .*{re.escape(TYPICAL[language])}\S", page, re.MULTILINE)
    ]
    assert not without


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_names_an_example_with_its_node(server: ComfyServer, language: str) -> None:
    workflows = {path.stem: path.read_text("utf-8") for path in (REPO / "workflows").glob("*.json")}
    for node, page in read_pages(language, our_nodes(server)).items():
        having = {name for name, text in workflows.items() if f'"{node}"' in text}
        (*_, last) = page.splitlines()
        named = set(re.findall(r"`([^`]+)`", last)) if EXAMPLES.match(last) else set()
        assert named <= having, f"{node}: its example does not have it"
        assert named or not having, f"{node}: name an example, one of {having}"


def test_no_page_is_left_over(server: ComfyServer) -> None:
    nodes = our_nodes(server)
    expected = {Path(form.format(node=node)) for form in LANGUAGES.values() for node in nodes}
    assert {path.relative_to(DOCS) for path in DOCS.rglob("*.md")} == expected


def test_locales_are_complete_and_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/locales.py", "--check"],
        cwd=REPO,
        env={**os.environ, "COMFYUI_PATH": str(find_comfyui())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_the_server_serves_every_language(server: ComfyServer) -> None:
    served = server.get("/i18n")
    for language in LANGUAGES:
        assert served[language]["nodeDefs"].keys() >= our_nodes(server).keys()
