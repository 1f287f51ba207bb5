"""``surgeon`` and ``python -m surgeon``: little enough that Ctrl-C is heard from the start."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from surgeon.cli import main as start

        start()
    except KeyboardInterrupt:
        sys.stderr.write("surgeon: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
