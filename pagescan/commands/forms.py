"""Checks which options go with which form of output, and makes the `Output`.

An option that a form does not take is refused: nobody should have to find out that it
had no effect. `--bytes` goes with every form except the live view, because CSV and JSON
have exact numbers anyway.
"""

from collections.abc import Mapping

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
}
"""The options that a form refuses, and a hint; "jsonl" is as "json"."""

SPELLED = {
    "by": "--by",
    "columns": "--columns",
    "sort": "--sort",
    "header": "--no-header",
    "exact": "--bytes",
    "csv": "--csv",
}
NAMES = {
    "json": "JSON",
    "live": "the live view",
    "list": "this list",
    "summary": "--wp-only",
    "binary": "--binary",
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
