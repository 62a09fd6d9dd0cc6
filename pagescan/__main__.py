"""Where the command starts: `pagescan`, and `python -m pagescan`."""

import sys


def main() -> None:
    """Run the command line; --version alone loads nothing."""
    if sys.argv[1:] == ["--version"]:
        from pagescan import __version__

        print(f"pagescan {__version__}")  # noqa: T201 - data goes to stdout
        return
    from pagescan.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
