"""`python -m acestep_core`: the `acestep` command."""

import sys

from .cli import main

sys.exit(main())
