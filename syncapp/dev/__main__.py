"""`make run`: `python -m syncapp.dev`."""

import sys

from syncapp.dev.runner import main

sys.exit(main())
