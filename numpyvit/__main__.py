"""`python -m numpyvit`: the command line without an installation."""

from __future__ import annotations

import sys

from numpyvit.cli import main

if __name__ == "__main__":
    sys.exit(main())
