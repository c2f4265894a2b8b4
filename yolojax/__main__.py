"""``python -m yolojax`` is the command ``yolojax``."""

import sys

from yolojax.cli import main

sys.exit(main())
