"""Run checks and print one line of JSON for each event. `tests.gpu` starts this and outlives its crash."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings

from acestep_core.runtime.devices import pick_device

from .context import Context
from .device import Device
from .registry import CHECKS
from .runner import run_checks

MARK = "@tests.gpu "  # before each event, as libraries print lines of their own


def main() -> None:
    """Run the checks of the arguments in their order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("names", nargs="+")
    args = parser.parse_args()
    logging.getLogger("acestep").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    context = Context(Device(pick_device(args.device)), args.quick)
    names = iter(args.names)

    def announced():
        for name in names:
            tell({"start": name})
            yield CHECKS[name]

    for result in run_checks(announced(), context, args.seconds):
        tell({"result": result.to_dict()})


def tell(event: dict) -> None:
    print(MARK + json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
