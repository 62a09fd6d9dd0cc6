"""`pagescan report`: shows a recording, at a glance or by one of its views."""

from typing import Any

import click

from pagescan.commands.datasets import DatasetWords, dataset_options, of_dataset
from pagescan.commands.forms import check_form
from pagescan.commands.options import common, output
from pagescan.commands.profile_options import ProfileFile, profile_in_place
from pagescan.commands.values import SECONDS, SIZE
from pagescan.console.context import Context
from pagescan.console.garbage import without_searches
from pagescan.console.streams import tell
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.results import Output
from pagescan.model.units import format_size, plural
from pagescan.recording import views
from pagescan.recording.by_writer import without_writers
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.over_time import slots_of
from pagescan.recording.store import Recording, open_recording
from pagescan.target.selection import Selection

VIEWS = (
    *("summary", "timeline", "heatmap", "ages", "working-set", "phases"),
    *("migration", "writers", "processes"),
)
_LEFT = 44  # cells beside the heat map, with the name of a mapping
_LEAST_SLOTS = 20


@click.command(
    epilog="""\b
Examples:
  pagescan report redis.pagescan
  pagescan report redis.pagescan --view ages --range '[anon]' --time 30s-2m
  pagescan report redis.pagescan --view migration --bandwidth 125M --downtime 50ms
  pagescan report redis.pagescan redis-2.pagescan --json | jq .summary.rate
  pagescan report redis.pagescan --html redis.html
  pagescan report redis.pagescan --format firefox -o redis.json
  pagescan report redis.pagescan --parquet looks
  pagescan report looks --fleet"""
)
@click.argument(
    "files", metavar="FILE...", nargs=-1, type=click.Path(readable=False), required=True
)
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
    type=SIZE,
    metavar="SIZE",
    help="With --view migration: bytes per second of the network (1G).",
)
@click.option(
    "--downtime",
    type=SECONDS,
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
@profile_in_place
@dataset_options
@output("report")
@common
def command(
    *,
    files: tuple[str, ...],
    view: str,
    ranges: tuple[str, ...],
    span: str | None,
    bandwidth: int | None,
    downtime: float | None,
    page: str | None,
    profile: tuple[str, str] | None,
    dataset: DatasetWords,
    output: Output,
    context: Context,
) -> int:
    """Show the recording in FILE, or several files as one recording.

    The target is not touched. Of a damaged file the undamaged looks are shown, and the
    exit code is 1.
    """
    del context
    if view != "migration" and (bandwidth is not None or downtime):
        raise UsageError("--bandwidth and --downtime need --view migration")
    refused = {"view": view != "summary", "range": ranges, "time": span}
    refused |= {"html": page, "format": profile, **_given(output)}
    code = of_dataset(files, dataset, refused, output)
    if code is not None:
        return code
    form = "page" if page is not None else "profile" if profile is not None else ""
    if page is not None and profile is not None:
        raise UsageError("--html and --format exclude each other")
    if form and view != "summary":
        word = "--html" if page is not None else "--format"
        raise UsageError(f"{word} shows everything, and takes no --view")
    text = output.format in ("table", "plain")
    if form or (view == "heatmap" and text):
        check_form(form or "heat map", _given(output))
    terms = {
        "bandwidth": 1 << 30 if bandwidth is None else bandwidth,
        "downtime": downtime or 0.3,
    }
    if not terms["bandwidth"]:
        raise UsageError("--bandwidth 0 moves nothing")
    selection = Selection.parse(ranges)
    with without_searches(), open_recording(*files) as recording:
        excerpt = Excerpt(
            recording,
            selection,
            parse_span(span, recording) if span else TimeSpan(),
        )
        try:
            excerpt.check()
            if page is not None:
                return _write_page(excerpt, page)
            if profile is not None:
                return _write_profile(excerpt, *profile)
            result = _result(excerpt, view, terms, output)
        except PagescanError:
            _tell_damage(recording)
            raise
        _write(excerpt, view, result, output)
        _tell_uncounted(excerpt, view)
        _tell_damage(recording)
        return 1 if recording.damage else 0


def _tell_uncounted(excerpt: Excerpt, view: str = "summary") -> None:
    """Say which files have no writers, where those of other files are shown."""
    if view not in ("writers", "summary") or not excerpt.recording.has_writers:
        return
    for path, looks in without_writers(excerpt).items():
        tell(
            f"pagescan: {path}: {plural(looks, 'look')} not counted among the"
            " functions: recorded without --who"
        )


def _given(output: Output) -> dict[str, object]:
    """Return which options of the output were given."""
    return {
        "json": output.is_json,
        "csv": output.format == "csv",
        "header": not output.header,
        "exact": output.exact,
    }


def _write_page(excerpt: Excerpt, path: str) -> int:
    """Write the page, and say so; return the exit code."""
    from pagescan.recording.page_contents import page_contents
    from pagescan.render.html.page import write_page

    size = write_page(page_contents(excerpt), path)
    looks = plural(len(excerpt.looks), "look")
    tell(f"pagescan: {path}: {looks}, {format_size(size)}")
    _tell_uncounted(excerpt)
    _tell_damage(excerpt.recording)
    return 1 if excerpt.recording.damage else 0


def _write_profile(excerpt: Excerpt, form: str, path: str) -> int:
    """Write the profile, and say so; return the exit code."""
    from pagescan.recording.timed_profile import timed_profile

    profile, looks = timed_profile(excerpt)
    ProfileFile(form, path).write(profile)
    tell(f"pagescan: {path}: {format_size(profile.bytes)} for a viewer")
    if looks > 1:
        tell(f"pagescan: it has one sample per {looks} looks, so that viewers open it")
    _tell_damage(excerpt.recording)
    return 1 if excerpt.recording.damage else 0


def _tell_damage(recording: Recording) -> None:
    if recording.quiet_step > 1:
        tell(
            f"pagescan: {recording.quiet_step} looks at a process that did not run are"
            " counted as one: there are more than a million"
        )
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
    from pagescan.render.report_writers import write_writers

    match view:
        case "summary" if output.format == "csv":
            report_tables.write_table("mappings", result.mappings, output)
        case "summary":
            recording = excerpt.recording
            names = _names_of(recording)
            size = recording.page_size
            report_text.write_summary(names, recording.facts, result, size, output)
        case "heatmap":
            begun = [at for _, at in slots_of(excerpt, _room(output)[0])]
            if output.format == "csv":
                report_tables.write_heat_rows(result, begun, output)
            else:
                report_text.write_heatmap(result, begun, output)
        case "migration":
            report_text.write_migration(result, output)
        case "writers":
            recording = excerpt.recording
            write_writers(
                *(result, recording.page_size, output),
                several=bool(recording.facts.group),
                sampled=any(look.estimate for look in excerpt.looks),
            )
        case "processes":
            report_text.write_processes(result, output)
        case _:
            names = _names_of(excerpt.recording)
            report_tables.write_table(view, result, output, processes=names)


def _names_of(recording: Recording) -> list[str]:
    """Return the names of all programs, by their indices."""
    targets = [one.target for one in recording.processes]
    return [f"{target.name} ({target.pid})" for target in targets]


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
