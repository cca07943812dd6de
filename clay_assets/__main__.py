"""`python -m clay_assets` is `clay`."""

import sys

from clay_assets.cli import main

sys.exit(main())
