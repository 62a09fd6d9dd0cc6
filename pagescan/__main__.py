"""Entry point of the command: `pagescan`, and `python -m pagescan`."""

import os
import sys


def main() -> None:
    """Run the command line; for --version, load nothing else."""
    if sys.argv[1:] == ["--version"] and _version_written():
        return
    try:
        code = _run()
    except KeyboardInterrupt:  # during the loading, or while the last output waits
        code = _interrupted()
    sys.exit(code)


def _run() -> int:
    import gc

    from pagescan.console.streams import take_over

    take_over()
    sys.unraisablehook = _not_raised
    # Loading makes no garbage, and the end of the process need not search all objects:
    # both take a seventh of a short command. cli.py turns it on before a command runs.
    gc.disable()
    from pagescan.cli import run

    code = run()
    import _signal  # type: ignore[import-not-found]  # signal takes a millisecond

    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # the command is over
    gc.freeze()
    return code


def _not_raised(event: "sys.UnraisableHookArgs") -> None:
    """Let a Ctrl-C come again that Python has dropped, as in the end of an object."""
    if event.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(event)
        return
    from pagescan.console.interrupts import dropped

    dropped()


def _interrupted() -> int:
    """Say it as for every command; one more Ctrl-C changes nothing."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from pagescan.cli import fail

    return fail(sys.argv[1:], KeyboardInterrupt())


def _version_written() -> bool:
    """Write the version; return False if none of it could be written at once."""
    from pagescan import __version__

    line = f"pagescan {__version__}\n".encode()
    try:
        return os.write(1, line) == len(line)  # a pipe takes all of it, or nothing
    except OSError:
        return False


if __name__ == "__main__":
    main()
