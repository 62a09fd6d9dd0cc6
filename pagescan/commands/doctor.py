"""`pagescan doctor`: tells what this kernel and user can do, with a fix for each no."""

import shutil
import textwrap

import click

from pagescan.commands.options import common, output
from pagescan.console.context import Context
from pagescan.console.streams import put
from pagescan.model.errors import KernelUnsupportedError
from pagescan.model.results import Output
from pagescan.render.document import document, write_document
from pagescan.render.few_rows import write_rows
from pagescan.tracking.doctor import Check, checks

_WORDS = {True: "yes", False: "no", None: "-"}


@click.command(
    epilog="""\b
Examples:
  pagescan doctor
  pagescan doctor --json | jq '.checks[] | select(.ok == false)'"""
)
@output("doctor")
@common
def command(*, output: Output, context: Context) -> int:
    """Show what this kernel supports and this user may do, tried row by row.

    Touches only its own memory and a child of its own. Exit code 5: nothing can be
    tracked here.
    """
    answers, can_track = checks()
    if output.is_json:
        rows = [
            {"name": row.name, "ok": row.ok, "why": row.why, "fix": row.fix}
            for row in answers
        ]
        write_document(document("doctor", checks=rows, can_track=can_track))
    elif output.format == "csv":
        cells = [(*_cells(row), row.fix or "") for row in answers]
        write_rows(("check", "ok", "why", "fix"), cells, output)
    else:
        _write_table(answers, wrapped=output.format == "table")
        context.say(
            "this kernel and this user can track writes"
            if can_track
            else "nothing can be tracked here: see the rows that say no"
        )
    return 0 if can_track else KernelUnsupportedError.code


def _cells(row: Check) -> tuple[str, ...]:
    return row.name, _WORDS[row.ok], row.why


def _write_table(answers: list[Check], *, wrapped: bool) -> None:
    width = max(len(row.name) for row in answers)
    room = shutil.get_terminal_size().columns - width - 7 if wrapped else 0

    def write(front: str, text: str) -> None:
        for line in textwrap.wrap(text, max(30, room)) if wrapped else [text]:
            put(f"{front}  {line}")
            front = " " * len(front)

    for row in answers:
        name, word, why = _cells(row)
        write(f"{name:<{width}}  {word:<3}", why)
        if row.fix:
            write(" " * (width + 5), f"fix: {row.fix}")
