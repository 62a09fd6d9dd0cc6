"""Checks which options go with which form of output, and makes the `Output`.

An option that a form does not take is refused: nobody should have to find out that it
had no effect. `--bytes` goes with every form except the live view, because CSV and JSON
have exact numbers anyway.
"""

from collections.abc import Mapping

import click
from click.core import ParameterSource

from pagescan.model.errors import UsageError
from pagescan.model.results import Output

OF_FORM = {
    "json": (
        ("columns", "sort", "header"),
        "the keys of JSON are fixed, and its rows ascend; jq selects and sorts",
    ),
    "live": (
        ("by", "columns", "sort", "header", "exact"),
        "in a pipe there are columns (| cat), and --csv and --json work everywhere",
    ),
    "list": (("header",), "--no-header is for --csv: elsewhere there is no header"),
    "summary": (
        ("by", "columns", "sort", "header", "exact", "csv"),
        "--wp-only prints a summary alone: as a line, or with --json",
    ),
    "binary": (
        ("columns", "header", "exact"),
        "its words are fixed: the guide describes them",
    ),
    "comparison": (
        ("by", "columns", "sort", "jsonl"),
        "diff OLD NEW takes --json, --csv, --no-header and --bytes",
    ),
    "heat map": (
        ("header", "exact"),
        "it has no header and no sizes: --json and --csv have exact numbers",
    ),
    "page": (
        ("json", "csv", "header", "exact"),
        "the page shows everything",
    ),
    "profile": (
        ("json", "csv", "header", "exact"),
        "the profile has everything, for a viewer",
    ),
    "fleet": (
        ("view", "range", "time", "html", "format"),
        "--question chooses one of its questions",
    ),
    "dataset": (
        ("view", "range", "time", "html", "format", "json", "csv", "header", "exact"),
        "a dataset takes whole recordings: queries select from it",
    ),
}
"""The options that a form refuses, and a hint; "jsonl" is as "json"."""

SPELLED = {
    "by": "--by",
    "columns": "--columns",
    "sort": "--sort",
    "header": "--no-header",
    "exact": "--bytes",
    "csv": "--csv",
    "view": "--view",
    "range": "--range",
    "time": "--time",
    "html": "--html",
    "format": "--format",
    "json": "--json",
    "jsonl": "--jsonl",
}
NAMES = {
    "json": "JSON",
    "live": "the live view",
    "list": "this list",
    "summary": "--wp-only",
    "binary": "--binary",
    "comparison": "diff OLD NEW",
    "heat map": "--view heatmap",
    "page": "--html",
    "profile": "--format",
    "dataset": "--parquet",
    "fleet": "--fleet",
}


def check_form(form: str, given: Mapping[str, object]) -> None:
    """Refuse options that a form of output does not take.

    Args:
        form: A key of `OF_FORM`; any other form takes all options.
        given: The options by their names in `SPELLED`; false where they are not given.

    Raises:
        UsageError: It names the first such option.
    """
    refused, hint = OF_FORM.get(form, ((), ""))
    for name in refused:
        if given.get(name):
            raise UsageError(
                f"{SPELLED[name]} does not go with {NAMES[form]}", hint=hint
            )


def check_columns(output: Output, kind: str) -> None:
    """Refuse columns that do not exist, before anything is done to a target.

    Raises:
        UsageError: A column of -c or --sort does not exist.
    """
    if output.columns is None and not output.sort:
        return
    from pagescan.render.columns import select, sort_keys
    from pagescan.render.rows import columns_of

    default, columns = columns_of(kind, output.by)
    select(output.columns, default, columns)
    sort_keys(output.sort, columns)


def given(name: str) -> bool:
    """Whether an option stands on the command line, also with its default value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def check_effect(names: Mapping[str, str], reason: str, hint: str = "") -> None:
    """Refuse options that have no effect beside the others.

    Args:
        names: The names of the parameters, each with its option.
        reason: The end of the sentence that begins with the option.
        hint: The remedy.

    Raises:
        UsageError: It names the first of them that was given.
    """
    for name, option in names.items():
        if given(name):
            raise UsageError(f"{option} {reason}", hint=hint or None)


_ROWS = ("plain", "csv")
"""The forms in which `watch` prints rows into a pipe."""


def default_by(kind: str, form: str, *, of_group: bool) -> str:
    """Return what a row stands for; a look of a program may have thousands of regions.

    Args:
        kind: The command.
        form: The form of output.
        of_group: Whether there are many targets.
    """
    if kind != "watch" or form not in _ROWS:
        return "region"
    return "process" if of_group else "mapping"


def default_sort(kind: str, form: str, by: str) -> str | None:
    """Return the order of rows: in `watch`, what was written most comes first."""
    if kind != "watch" or form not in _ROWS:
        return None
    return {"mapping": "-written", "process": "-pages"}.get(by)
