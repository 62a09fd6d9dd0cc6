"""`pagescan report`: shows a recording, at a glance or by one of its views."""

from typing import Any

import click

from pagescan.commands.options import common, output
from pagescan.console.context import Context
from pagescan.console.streams import tell
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.results import Output
from pagescan.model.units import format_size, parse_seconds, parse_size, plural
from pagescan.recording import views
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.over_time import slots_of
from pagescan.recording.store import Recording, open_recording
from pagescan.target.selection import Selection

VIEWS = (
    *("summary", "timeline", "heatmap", "ages", "working-set", "phases"),
    "migration",
)
_LEFT = 44  # cells beside the heat map, with the name of a mapping
_LEAST_SLOTS = 20


@click.command(
    epilog="""\b
Examples:
  pagescan report redis.pagescan
  pagescan report redis.pagescan --view ages --range '[anon]' --time 30s-2m
  pagescan report redis.pagescan --view migration --bandwidth 125M --downtime 50ms
  pagescan report *.pagescan --json | jq .summary.rate
  pagescan report redis.pagescan --html redis.html"""
)
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(), required=True)
@click.option(
    "--view",
    type=click.Choice(VIEWS),
    default="summary",
    help="The view to show (summary).",
)
@click.option(
    "--range",
    "ranges",
    metavar="RANGE",
    multiple=True,
    help="Only this memory: addresses, or the name of a mapping.",
)
@click.option(
    "--time",
    "span",
    metavar="FROM-TO",
    help="Only this time: 30s-2m since the beginning, or 12:03-12:04:30 in UTC.",
)
@click.option(
    "--bandwidth",
    metavar="SIZE",
    help="With --view migration: bytes per second of the network (1G).",
)
@click.option(
    "--downtime",
    metavar="TIME",
    help="With --view migration: the longest freeze at the end (300ms).",
)
@click.option(
    "--html",
    "page",
    metavar="PAGE",
    type=click.Path(),
    help="Write a page with all of it for a browser; it needs no network.",
)
@output("report")
@common
def command(
    *,
    files: tuple[str, ...],
    view: str,
    ranges: tuple[str, ...],
    span: str | None,
    bandwidth: str | None,
    downtime: str | None,
    page: str | None,
    output: Output,
    context: Context,
) -> int:
    """Show the recording in FILE, or several files as one recording.

    The target is not touched. Of a damaged file the undamaged looks are shown, and the
    exit code is 1.
    """
    del context
    if view != "migration" and (bandwidth or downtime):
        raise UsageError("--bandwidth and --downtime need --view migration")
    if page is not None:
        _refuse_with_page(view, output)
    terms = {
        "bandwidth": parse_size(bandwidth) if bandwidth else 1 << 30,
        "downtime": parse_seconds(downtime) if downtime else 0.3,
    }
    if not terms["bandwidth"]:
        raise UsageError("--bandwidth 0 moves nothing")
    selection = Selection.parse(ranges)
    with open_recording(*files) as recording:
        excerpt = Excerpt(
            recording,
            selection,
            parse_span(span, recording) if span else TimeSpan(),
        )
        try:
            excerpt.check()
            if page is not None:
                return _write_page(excerpt, page)
            result = _result(excerpt, view, terms, output)
        except PagescanError:
            _tell_damage(recording)
            raise
        _write(excerpt, view, result, output)
        _tell_damage(recording)
        return 1 if recording.damage else 0


def _refuse_with_page(view: str, output: Output) -> None:
    """Raise if the page is asked for together with another form of the report."""
    if view != "summary":
        raise UsageError("--html shows everything, and takes no --view")
    for form in ("json", "csv"):
        if output.format == form:
            raise UsageError(f"--html and --{form} exclude each other")


def _write_page(excerpt: Excerpt, path: str) -> int:
    """Write the page, and say so; return the exit code."""
    from pagescan.recording.page_contents import page_contents
    from pagescan.render.html.page import write_page

    size = write_page(page_contents(excerpt), path)
    looks = plural(len(excerpt.looks), "look")
    tell(f"pagescan: {path}: {looks}, {format_size(size)}")
    _tell_damage(excerpt.recording)
    return 1 if excerpt.recording.damage else 0


def _tell_damage(recording: Recording) -> None:
    for message in recording.damage:
        tell(f"pagescan: {message}")


def _result(excerpt: Excerpt, view: str, terms: dict[str, Any], output: Output) -> Any:  # noqa: ANN401 - each view has its own
    match view:
        case "heatmap":
            return views.heatmap(excerpt, *_room(output))
        case "timeline":
            return views.timeline(excerpt, 60 if output.is_json else 20)
        case "migration":
            return views.migration(excerpt, **terms)
        case "working-set":
            return views.working_set(excerpt)
        case _:
            return getattr(views, view)(excerpt)


def _room(output: Output) -> tuple[int, int]:
    """Return the numbers of slots of time and of pieces of memory of a heat map."""
    if output.format != "table":
        return 60, 40
    import shutil

    size = shutil.get_terminal_size()
    return max(_LEAST_SLOTS, size.columns - _LEFT), max(8, size.lines - 4)


def _write(excerpt: Excerpt, view: str, result: Any, output: Output) -> None:  # noqa: ANN401 - as above
    """Write the result of a view in the format of `output`."""
    if output.is_json:
        _write_json(excerpt, view, result)
        return
    from pagescan.render import report_tables, report_text

    match view:
        case "summary" if output.format == "csv":
            report_tables.write_table("mappings", result.mappings, output)
        case "summary":
            recording = excerpt.recording
            used = sorted({look.process for look in excerpt.looks})
            names = [_name_of(recording, index) for index in used]
            report_text.write_summary(names, recording.facts, result, output)
        case "heatmap":
            begun = [at for _, at in slots_of(excerpt, _room(output)[0])]
            if output.format == "csv":
                report_tables.write_heat_rows(result, begun, output)
            else:
                report_text.write_heatmap(result, begun, output)
        case "migration":
            report_text.write_migration(result, output)
        case _:
            report_tables.write_table(view, result, output)


def _name_of(recording: Recording, index: int) -> str:
    target = recording.processes[index].target
    return f"{target.name} ({target.pid})"


def _write_json(excerpt: Excerpt, view: str, result: Any) -> None:  # noqa: ANN401 - as above
    from pagescan.render.report_json import value_of, write_report
    from pagescan.render.report_tables import moment_of

    looks = excerpt.looks
    begun = looks[0].time_ns - looks[0].interval_ns
    more = {
        "excerpt": {
            "ranges": excerpt.selection.words,
            "begun": value_of(moment_of(begun)),
            "ended": value_of(looks[-1].time),
            "looks": len(looks),
        },
        "view": view,
    }
    if view == "heatmap":
        slots = slots_of(excerpt, 60)
        result = {
            "slots": [value_of(moment_of(at)) for _, at in slots],
            "rows": value_of(result),
        }
    write_report(excerpt.recording, view.replace("-", "_"), result, more)
