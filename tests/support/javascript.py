"""Values of the page's modules that know no page, from the Node.js that Playwright brings."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from playwright._impl._driver import compute_driver_executable

SCRIPTS = Path(__file__).parents[2] / "web" / "js"


def evaluate(module: str, *expressions: str) -> list[Any]:
    """Return the values of expressions, in which `m` is a module of web/js, as JSON keeps them."""
    script = (
        f"import {{ readFileSync }} from 'node:fs'; const text = readFileSync({json.dumps(str(SCRIPTS / module))});"
        "const m = await import('data:text/javascript,' + encodeURIComponent(text));"
        f"console.log(JSON.stringify([{', '.join(f'(() => {each})()' for each in expressions)}]));"
    )
    node, _ = compute_driver_executable()
    done = subprocess.run(
        [node, "--input-type=module", "-"], input=script, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
