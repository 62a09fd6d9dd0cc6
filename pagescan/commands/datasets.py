"""The options of `report` for datasets of many recordings, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pagescan.commands.forms import check_form
from pagescan.commands.options import shared
from pagescan.commands.values import whole
from pagescan.console.streams import tell
from pagescan.model.errors import UsageError
from pagescan.model.units import format_size, plural

if TYPE_CHECKING:
    from pagescan.model.results import Output


_HEADINGS = {
    "memory": "Memory that is written most",
    "functions": "Functions that write most",
    "growth": "Processes that grow most",
    "regressions": "Writes from release to release",
}
QUESTIONS = tuple(_HEADINGS)
"""The questions to a fleet, in the order of their answers."""
_MOST = 10
"""Rows per question, where all are answered."""


@dataclass(frozen=True, slots=True)
class DatasetWords:
    """The options for datasets.

    Attributes:
        folder: The dataset of --parquet; None: it was not given.
        since_look: The number of --since-look; None: it was not given.
        release: The release of --release; None: it was not given.
        fleet: Whether a dataset is asked: --fleet.
        engine: The engine of --engine; None: it was not given.
        question: The question of --question; None: it was not given.
    """

    folder: str | None
    since_look: int | None
    release: str | None
    fleet: bool
    engine: str | None
    question: str | None

    def check(self, given: Mapping[str, object]) -> None:
        """Refuse options that do not go with --parquet, or with --fleet.

        Raises:
            UsageError: It names the first such option.
        """
        if self.fleet and self.folder is not None:
            raise UsageError("--fleet asks a dataset, and --parquet adds to one")
        self.check_unused()
        check_form("fleet" if self.fleet else "dataset", given)

    def check_unused(self) -> None:
        """Refuse options of --parquet without it, and options of --fleet without it.

        Raises:
            UsageError: It names the first such option.
        """
        if self.folder is None:
            of_parquet = {"--since-look": self.since_look, "--release": self.release}
            _refuse(of_parquet, "--parquet")
        if not self.fleet:
            of_fleet = {"--engine": self.engine, "--question": self.question}
            _refuse(of_fleet, "--fleet")


def _refuse(options: Mapping[str, object], needed: str) -> None:
    """Raise a UsageError for the first option that is given: it needs another one."""
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} needs {needed}")


def _words(words: dict[str, Any]) -> DatasetWords:
    return DatasetWords(
        *(words.pop(name) for name in ("folder", "since_look", "release")),
        *(words.pop(name) for name in ("fleet", "engine", "question")),
    )


dataset_options: Callable[[Any], Any] = shared(
    "dataset",
    _words,
    click.option(
        "--parquet",
        "folder",
        metavar="DIR",
        type=click.Path(),
        help="Add the looks to a dataset of Parquet files, by host and date; looks that"
        " are in it already are left out.",
    ),
    click.option(
        "--since-look",
        type=whole(0),
        metavar="N",
        help="With --parquet: only the looks after look N.",
    ),
    click.option(
        "--release",
        metavar="NAME",
        help="With --parquet: the release of the program, by which --fleet compares"
        " (the path of its executable).",
    ),
    click.option(
        "--fleet",
        is_flag=True,
        help="FILE is a dataset: answer the questions about all of its recordings.",
    ),
    click.option(
        "--engine",
        metavar="NAME",
        help="With --fleet: duckdb (the default), spark, or spark:MASTER.",
    ),
    click.option(
        "--question",
        type=click.Choice(QUESTIONS),
        help="With --fleet: only this question.",
    ),
)


def of_dataset(
    files: Sequence[str],
    words: DatasetWords,
    given: Mapping[str, object],
    output: Output,
) -> int | None:
    """Do what the options for datasets ask; return the exit code; None: nothing.

    Args:
        files: The words of the command line.
        words: The options for datasets.
        given: The other options.
        output: The format.
    """
    if words.folder is None and not words.fleet:
        words.check_unused()
        return None
    words.check(given)
    return ask(files, words, output) if words.fleet else export(files, words)


def export(files: Sequence[str], words: DatasetWords) -> int:
    """Add recordings to the dataset, one after the other; return the exit code."""
    from pagescan.commands.signals import undo_on_signals

    with undo_on_signals():
        damaged = [_export_one(path, words) for path in files]
    return 1 if any(damaged) else 0


def _export_one(path: str, words: DatasetWords) -> bool:
    """Add a recording, and say what was added; return whether it is damaged."""
    from pagescan.console.garbage import without_searches
    from pagescan.recording.api import open_recording

    assert words.folder is not None  # noqa: S101 - the caller has checked it
    with without_searches(), open_recording(path) as recording:
        added = recording.write_parquet(
            words.folder,
            since_look=words.since_look or 0,
            release=words.release,
        )
        for message in recording.damage:
            tell(f"pagescan: {message}")
    if added.looks:
        tell(
            f"pagescan: {words.folder}: {plural(added.looks, 'look')} of {path},"
            f" {plural(added.regions, 'region')}, {format_size(added.bytes)}"
        )
    elif recording.looks:
        tell(f"pagescan: {words.folder}: {path} has no look that is not in it")
    else:
        tell(f"pagescan: {path} has no look")
    return bool(recording.damage)


def ask(files: Sequence[str], words: DatasetWords, output: Output) -> int:
    """Answer the fleet's questions; return the exit code."""
    from pagescan.fleet.api import open_fleet

    if len(files) != 1:
        raise UsageError("--fleet asks one dataset")
    wanted = (words.question,) if words.question else QUESTIONS
    if output.format == "csv" and words.question is None:
        wanted = QUESTIONS[:1]
    with open_fleet(files[0], words.engine or "duckdb") as fleet:
        while True:
            known = len(fleet.damaged)
            answers = {name: fleet.answer(name) for name in wanted}
            if len(fleet.damaged) == known:  # all are without the same files
                break
        for path in fleet.damaged:
            tell(f"pagescan: {path} is damaged: its looks are left out")
    code = 1 if fleet.damaged else 0
    if output.is_json:
        from pagescan.render.report_json import write_fleet

        whole = {name: answers.get(name) for name in QUESTIONS}
        write_fleet(files[0], words.engine or "duckdb", whole)
        return code
    from pagescan.render.fleet_tables import write_answer

    for at, (name, rows) in enumerate(answers.items()):
        heading = _HEADINGS[name] if len(answers) > 1 else None
        most = _MOST if len(answers) > 1 else None
        write_answer(name, rows, output, (heading, most), first=not at)
    return code
