"""Help pages and workflow templates in the frontend."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from ..host.server import REPO
from .conftest import PACK_FOLDER
from .frontend import Frontend

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))


@pytest.mark.parametrize(("language", "words"), [("en", "When to use it"), ("ja", "使いどころ"), ("zh", "何时使用")])
def test_the_info_button_opens_our_page(tab: Frontend, language: str, words: str) -> None:
    tab.open(language)
    tab.drop_file(REPO / "workflows" / "01 Text to music.json")
    tab.fit_view()
    (sample,) = [node for node in tab.nodes() if node.type == "AS15_Sample"]
    tab.open_help(sample).get_by_role("heading", name=words).wait_for()


def name_in(url: str) -> str:
    return unquote(url.rsplit("/", 1)[1])


def test_templates_have_a_picture_and_open(tab: Frontend) -> None:
    tab.open()
    pictures: dict[str, int] = {}  # a card without a picture shows the frontend's own, so check the requests
    tab.page.on("response", lambda response: pictures.update({name_in(response.url): response.status}))
    tab.open_templates(PACK_FOLDER)
    for workflow in WORKFLOWS:
        tab.template_card(workflow.stem)
    assert not [workflow.stem for workflow in WORKFLOWS if pictures[f"{workflow.stem}.jpg"] != 200], (
        "no picture beside these workflows"
    )
    tab.screenshot("templates")
    tab.template_card("01 Text to music").click()
    tab.page.wait_for_function("app.graph.nodes.length > 0")
