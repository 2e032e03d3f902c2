"""``python -m vla`` is ``vla``."""

import sys

from vla.cli import main

sys.exit(main())
