"""Where the command starts: ``zeta-bench`` and ``python -m zeta_bench``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being imported is one sentence too."""
    try:
        from zeta_bench.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was started.\n")
        sys.exit(1)
    command()


if __name__ == "__main__":
    main()
