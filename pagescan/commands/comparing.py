"""Compares two recordings, for `pagescan diff OLD NEW`."""

from pagescan.console.streams import tell
from pagescan.model.errors import UsageError
from pagescan.model.results import Output


def compare_recordings(old: str, new: str, output: Output) -> int:
    """Write the comparison of two recordings; return the exit code.

    Raises:
        PagescanError: A file cannot be read, or is no recording.
    """
    if output.format == "jsonl" or output.by != "region" or output.columns:
        raise UsageError(
            "diff OLD NEW takes --json, --csv, --no-header and --bytes alone"
        )
    from pagescan.recording.compare import compare
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.store import open_recording

    with open_recording(old) as before, open_recording(new) as after:
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
