"""``python -m vidpool`` is the ``vidpool`` command."""

import sys

from vidpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
