"""The options that write a result for a viewer of profiles: --format and -o."""

import contextlib
import os
from collections.abc import Callable

import click

from pagescan.commands.options import Command, Words, shared
from pagescan.commands.running import open_kept
from pagescan.model.errors import UsageError, file_error
from pagescan.model.profile import Profile
from pagescan.render.profiles import FORMATS, write_profile


class ProfileFile:
    """A file for a profile; it is opened before anything is done to the target.

    Attributes:
        path: Its path.
    """

    def __init__(self, form: str, path: str) -> None:
        """Create the file; one that exists stays as it is until `write`.

        Raises:
            PagescanError: It cannot be written.
        """
        self.path = path
        self._form = form
        self._made = False  # and nothing has been written to it
        try:
            self._file = open(  # noqa: SIM115 - `write` closes it
                path,
                "w",
                encoding="utf-8",
                errors="backslashreplace",
                opener=self._opened,
            )
        except OSError as error:
            raise file_error(error, f"write {path}") from error

    def write(self, profile: Profile) -> None:
        """Write a profile, and close the file.

        Raises:
            PagescanError: It is not complete, as on a full disk.
        """
        self._made = False
        try:
            with self._file:
                with contextlib.suppress(OSError):  # it is a pipe, or a device
                    self._file.truncate(0)
                write_profile(profile, self._form, self._file)
        except OSError as error:
            raise file_error(error, f"write {self.path}", call="write") from error

    def _opened(self, path: str, _: int) -> int:
        fd, self._made = open_kept(path)
        return fd

    def close(self) -> None:
        """Close the file; without a profile it is removed, unless it was there."""
        self._file.close()
        if self._made:
            self._made = False
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _asked(words: Words) -> tuple[str, str] | None:
    """Return the format and the path; None: no profile is asked for."""
    form, path = words.pop("profile_format"), words.pop("profile_path")
    if (form is None) != (path is None):
        raise UsageError(
            "--format and -o go together",
            hint="as in: --format speedscope -o writers.json",
        )
    return None if form is None else (form, path)


def _profile(words: Words) -> ProfileFile | None:
    asked = _asked(words)
    if asked is None:
        return None
    if words["subject"] not in ("function", "line"):
        raise UsageError("--format goes with --by function and --by line")
    file = ProfileFile(*asked)
    click.get_current_context().call_on_close(file.close)
    return file


def _options(what: str) -> tuple[Callable[[Command], Command], ...]:
    """Return both options; `what` begins the help."""
    return (
        click.option(
            "--format",
            "profile_format",
            type=click.Choice(FORMATS),
            help=f"{what} for a viewer: the Firefox Profiler, speedscope, or flame"
            " graphs (collapsed stacks).",
        ),
        click.option(
            "-o",
            "--output",
            "profile_path",
            metavar="FILE",
            type=click.Path(),
            help="The file for --format.",
        ),
    )


profile_options = shared(
    "profile", _profile, *_options("Also write the bytes by thread and function")
)
"""Adds --format and -o; the command gets a `profile`, or None."""

profile_in_place = shared(
    "profile",
    _asked,
    *_options("Write the bytes by time, thread and function, and print no report,"),
)
"""Adds the same options for a profile in place of an answer.

The command gets the format and the path as `profile`, or None.
"""
