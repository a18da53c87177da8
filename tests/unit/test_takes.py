"""The logic of Compare Takes on the page, without a page."""

from __future__ import annotations

from functools import partial

from tests.support import javascript

evaluate = partial(javascript.evaluate, "takes.js")


def test_a_blind_order_has_every_take_once() -> None:
    orders = evaluate("Array.from({ length: 200 }, () => m.shuffled(4))")[0]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert {order[0] for order in orders} == {0, 1, 2, 3}
    assert evaluate("m.shuffled(3, () => 0)", "m.shuffled(1)") == [[1, 2, 0], [0]]


def test_hidden_takes_have_letters() -> None:
    assert evaluate("m.nameOf(1, 4, true)", "m.nameOf(1, 4, false)") == ["B", "5"]


def test_positions_and_factors() -> None:
    assert evaluate("m.positionOf(3, 2, 10)", "m.positionOf(3, -1, 10)", "m.positionOf(9, 5, 10)") == [5, 2, 10]
    assert evaluate("m.factorOf(0)", "Math.round(1000 * m.factorOf(-6))") == [1, 501]
