"""The options that write a result for a viewer of profiles: --format and -o."""

import contextlib
import os

import click

from pagescan.commands.options import Words, shared
from pagescan.model.errors import UsageError, file_error
from pagescan.model.writers import WriterReport
from pagescan.render.profiles import FORMATS, write_profile


class ProfileFile:
    """A file for a profile; it is opened before anything is done to the target."""

    def __init__(self, form: str, path: str) -> None:
        """Create the file; one that exists stays as it is until `write`.

        Raises:
            PagescanError: It cannot be written.
        """
        self.path = path
        self._form = form
        try:
            self._file = open(  # noqa: SIM115 - `write` closes it
                path,
                "w",
                encoding="utf-8",
                errors="backslashreplace",
                opener=_opener,
            )
        except OSError as error:
            raise file_error(error, f"write {path}") from error

    def write(self, report: WriterReport) -> None:
        """Write a report, and close the file.

        Raises:
            PagescanError: It is not complete, as on a full disk.
        """
        from pagescan.model.profile import profile_of

        try:
            with self._file:
                with contextlib.suppress(OSError):  # it is a pipe, or a device
                    self._file.truncate(0)
                write_profile(profile_of(report), self._form, self._file)
        except OSError as error:
            raise file_error(error, f"write {self.path}", call="write") from error


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def _profile(words: Words) -> ProfileFile | None:
    form, path = words.pop("profile_format"), words.pop("profile_path")
    if (form is None) != (path is None):
        raise UsageError(
            "--format and -o go together",
            hint="as in: --format speedscope -o writers.json",
        )
    return None if form is None else ProfileFile(form, path)


profile_options = shared(
    "profile",
    _profile,
    click.option(
        "--format",
        "profile_format",
        type=click.Choice(FORMATS),
        help="Also write the bytes by thread and function for a viewer: the Firefox"
        " Profiler, speedscope, or flame graphs (collapsed stacks).",
    ),
    click.option(
        "-o",
        "--output",
        "profile_path",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="The file for --format.",
    ),
)
"""Adds --format and -o; the command gets a `profile`, or None."""
