"""Run the `acestep` command as `python -m acestep_core`."""

import sys

from .cli import main

sys.exit(main())
