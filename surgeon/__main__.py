"""``surgeon`` and ``python -m surgeon``: little enough that Ctrl-C is heard from the start."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Import the command line and run it."""
    # Imports and torch's exporter make objects by the million that stay; looking for garbage among
    # them at the usual pace takes a sixth of an export.
    gc.set_threshold(50_000, 20, 50)
    try:
        from surgeon.cli import main as start

        start()
    except KeyboardInterrupt:
        sys.stderr.write("surgeon: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
