"""docs/api.md says what the docstrings say."""

from tools.api_page import PAGE, render


def test_the_api_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == render(), "run python -m tools.api_page"
