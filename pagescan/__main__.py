"""Where the command starts: `pagescan`, and `python -m pagescan`."""

import sys


def main() -> None:
    """Run the command line; --version alone loads nothing."""
    if sys.argv[1:] == ["--version"]:
        from pagescan import __version__

        print(f"pagescan {__version__}")  # noqa: T201 - data goes to stdout
        return
    import gc

    # Loading makes no garbage, and the end need not look through all that is left:
    # together a seventh of a short command. cli.py turns it on before a command runs.
    gc.disable()
    from pagescan.cli import run

    code = run()
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
