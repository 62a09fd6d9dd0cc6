"""Compares two recordings, for `pagescan diff OLD NEW`."""

from pagescan.commands.forms import check_form
from pagescan.console.streams import tell
from pagescan.model.results import Output


def compare_recordings(old: str, new: str, output: Output) -> int:
    """Write the comparison of two recordings; return the exit code.

    Raises:
        UsageError: An option has no effect on a comparison.
        PagescanError: A file cannot be read, or is no recording.
    """
    check_form(
        "comparison",
        {
            "by": output.by != "region",
            "columns": output.columns,
            "sort": output.sort,
            "jsonl": output.format == "jsonl",
        },
    )
    from pagescan.console.garbage import without_searches
    from pagescan.recording.compare import compare
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.store import open_recording

    with (
        without_searches(),
        open_recording(old) as before,
        open_recording(new) as after,
    ):
        result = compare(Excerpt(before), Excerpt(after))
        if output.is_json:
            from pagescan.render.report_json import write_comparison as write_document

            write_document(before, after, result)
        else:
            from pagescan.render.report_text import write_comparison

            write_comparison(result, output)
        damage = [*before.damage, *after.damage]
    for message in damage:
        tell(f"pagescan: {message}")
    return 1 if damage else 0
