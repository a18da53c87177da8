"""One ComfyUI server and one browser for the session, and a new tab per test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from ..host.server import REPO, ComfyServer
from .frontend import WINDOW, Frontend, launch

# ComfyUI serves no help pages from a folder with a space, and the frontend requests none with a dot.
PACK_FOLDER = "songs_of_mine"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    other = os.environ.get("COMFYUI_FRONTEND")  # the "static" folder of another comfyui-frontend-package
    args = ("--cpu", *(("--front-end-root", other) if other else ()))
    comfy = ComfyServer(tmp_path_factory.mktemp("comfyui"), args=args)
    comfy.install(REPO, PACK_FOLDER)
    with comfy:
        yield comfy


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def tab(server: ComfyServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Frontend]:
    """A tab whose page must have no errors. Its last screenshot is saved."""
    context = browser.new_context(viewport=WINDOW)
    frontend = Frontend(context.new_page(), server)
    yield frontend
    frontend.screenshot(request.node.name)
    context.close()
    assert not frontend.errors
