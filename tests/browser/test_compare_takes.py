"""Compare Takes on the canvas: playing, switching, and the take to keep."""

from __future__ import annotations

from pathlib import Path

from .frontend import QUEUED_INPUTS, Frontend
from .test_text import both_renderers, drop

GRAPH = [
    ("AS15_CompareTakes", [1, True, False], [(1, 0, "take_1"), (2, 0, "take_2")]),
    ("LoadAudio", ["ACE-Step example.ogg"], []),
    ("AS15_FinishSong", ["broadcast (-23)", -14, -1, 0, 0, False, 0, False], [(1, 0, "audio")]),
]
ROWS = ".as15-takes [data-take]"
AUDIBLE = f"[...document.querySelectorAll('{ROWS}')].findIndex(row => row.dataset.audible === 'true')"
TIME = "document.querySelector('.as15-takes span').textContent"
NAMES = f"[...document.querySelectorAll('{ROWS}')].map(row => row.firstChild.textContent)"
KEPT = f"[...document.querySelectorAll('{ROWS} .as15-keep')].map(keep => keep.ariaPressed)"


def keep_of(tab: Frontend) -> int:
    assert tab.page.evaluate(QUEUED_INPUTS)["AS15_CompareTakes"].keys().isdisjoint({"takes"})
    return tab.saved_values()["AS15_CompareTakes"][0]


@both_renderers
def test_takes_are_heard_and_one_is_kept(tab: Frontend, tmp_path: Path, nodes_2: bool) -> None:
    tab.open(nodes_2=nodes_2)
    finish = ("AS15_FinishSong", [GRAPH[2][1][0], -14, -1, 0, 2 if nodes_2 else 1, *GRAPH[2][1][5:]], GRAPH[2][2])
    drop(tab, [*GRAPH[:2], finish], tmp_path)
    tab.press_run()
    tab.page.wait_for_function(f"{NAMES}.length === 2")
    tab.fit_view()
    assert tab.page.evaluate(NAMES) == ["1", "2"] and tab.page.evaluate(KEPT) == ["true", "false"]

    play = tab.page.locator(".as15-takes button").first
    play.click()
    tab.page.wait_for_function(f"/^0:0[0-9]\\.[1-9]/.test({TIME})")
    tab.page.locator(ROWS).nth(1).locator("button").first.click()
    assert tab.page.evaluate(AUDIBLE) == 1
    tab.page.keyboard.press("1")
    assert tab.page.evaluate(AUDIBLE) == 0, "a key switches"
    before = tab.page.evaluate(TIME)
    tab.page.wait_for_function(f"{TIME} !== {before!r}")
    tab.screenshot(f"takes {'nodes_2' if nodes_2 else 'canvas'}")
    play.click()

    tab.page.locator(".as15-keep").nth(1).click()
    assert keep_of(tab) == 2 and tab.page.evaluate(KEPT) == ["false", "true"]
    tab.press_run()
    tab.page.wait_for_timeout(1000)
    assert tab.page.evaluate(AUDIBLE) == 0 and tab.page.evaluate(KEPT) == ["false", "true"]


def test_blind_takes_have_letters_until_one_is_kept(tab: Frontend, tmp_path: Path) -> None:
    tab.open()
    blind = ("AS15_CompareTakes", [1, True, True], GRAPH[0][2])
    drop(tab, [blind, *GRAPH[1:]], tmp_path)
    tab.press_run()
    tab.page.wait_for_function(f"{NAMES}.length === 2")
    tab.fit_view()
    assert tab.page.evaluate(NAMES) == ["A", "B"] and tab.page.evaluate(KEPT) == ["false", "false"]
    second = int(tab.page.locator(ROWS).nth(1).get_attribute("data-take"))
    tab.page.locator(".as15-keep").nth(1).click()
    assert keep_of(tab) == second + 1 and tab.page.evaluate(NAMES) == ["1", "2"]
