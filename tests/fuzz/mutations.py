"""Seeded mutations of bytes, JSON text and JSON values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

DEEP = 100_000
NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**63, 10**12, 10**30, -(2**63), 0.0, 0.5, 1e308, -1e-308)
ODD: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: "",
    lambda: "x" * 300,
    lambda: "\0",
    lambda: "a\nb",
    lambda: "\ud800",
    lambda: "../..",
    lambda: "1",
    lambda: [],
    lambda: {},
    lambda: [[]],
    lambda: {"": None},
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: float("-inf"),
    lambda: _nested(400),
)


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def odd_value(rng: random.Random) -> Any:
    return rng.choice(NUMBERS) if rng.random() < 0.4 else rng.choice(ODD)()


def mutate_value(rng: random.Random, content: Any) -> Any:
    """Change, remove, copy or rename one item somewhere in a JSON value. The value is changed in place."""
    parent, key = None, None
    node = content
    while isinstance(node, (dict, list)) and node and (parent is None or rng.random() < 0.75):
        parent, key = node, rng.choice([*node]) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    if parent is None:
        return odd_value(rng)
    change = rng.randrange(6)
    if change == 0:
        parent.pop(key)
    elif change == 1 and isinstance(parent, dict):
        parent[rng.choice([str(key) + "x", "x" * 300, "", "\0", str(key).upper()])] = parent.pop(key)
    elif change == 2 and isinstance(node, (int, float)) and not isinstance(node, bool):
        parent[key] = rng.choice([node + 1, node - 1, node * 2, -node, float(node), node + 0.5, str(node), [node]])
    elif change == 3 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), node if rng.random() < 0.5 else odd_value(rng))
    else:
        parent[key] = odd_value(rng)
    return content


def mutate_json(rng: random.Random, text: bytes) -> bytes:
    """Mutate a JSON file: mostly its values, at times its text."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, text)
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = mutate_value(rng, content)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, insert or repeat bytes. The start of the file, where headers are, is hit most often."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        limit = len(changed) if rng.random() < 0.4 else min(len(changed), 64)
        place = rng.randrange(limit) if limit else 0
        change = rng.randrange(8)
        if change == 0 and limit:
            changed[place] ^= 1 << rng.randrange(8)
        elif change == 1:
            del changed[place:]
        elif change == 2:
            changed[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
        elif change == 3:
            del changed[place : place + rng.choice((1, 4, 8, 100))]
        elif change == 4:
            changed[place : place + 4] = rng.choice((b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x01\0\0\0"))
        elif change == 5:
            changed += rng.randbytes(rng.choice((1, 7, 1000)))
        elif change == 6:
            changed[place:place] = rng.choice((b"[", b'{"a":')) * DEEP
        elif limit:
            changed[place] = rng.randrange(256)
    return bytes(changed)
