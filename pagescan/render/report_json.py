"""Writes the report of a recording as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pagescan.model.results import Cost
from pagescan.model.units import format_address, format_time
from pagescan.render.document import cost_keys, document, target_keys, write_document
from pagescan.render.report_tables import moment_of

VIEWS = (
    *("summary", "timeline", "heatmap", "ages", "working_set", "phases", "migration"),
    *("writers", "processes"),
)


def write_report(recording: Any, view: str, result: Any, more: dict[str, Any]) -> None:  # noqa: ANN401 - records of the recording, which render does not know
    """Write the document of a view; the keys of the other views are null.

    Args:
        recording: The `Recording`.
        view: One of `VIEWS`.
        result: The result of the view.
        more: Facts of the excerpt.
    """
    keys = dict.fromkeys(VIEWS, None) | {view: value_of(result)}
    write_document(
        document("report", recording=recording_keys(recording), **more, **keys)
    )


def write_fleet(dataset: str, engine: str, answers: dict[str, Any]) -> None:
    """Write the document of a fleet; questions that were not asked are null."""
    keys = {
        name: None if rows is None else value_of(rows) for name, rows in answers.items()
    }
    write_document(document("fleet", dataset=dataset, engine=engine, **keys))


def write_comparison(old: Any, new: Any, result: Any) -> None:  # noqa: ANN401 - as above
    """Write the document of a comparison."""
    write_document(
        document(
            "comparison",
            old=recording_keys(old),
            new=recording_keys(new),
            comparison={
                "old": _totals(result.old),
                "new": _totals(result.new),
                "old_set": result.old_set,
                "new_set": result.new_set,
                "mappings": value_of(result.mappings),
                "functions": value_of(result.functions),
                "processes": value_of(result.processes),
            },
        )
    )


def _totals(summary: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    keys: dict[str, Any] = value_of(summary)
    return {
        name: value
        for name, value in keys.items()
        if name not in ("timeline", "mappings", "phases", "writers", "processes")
    }


def recording_keys(recording: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return the keys of a recording's facts."""
    facts = recording.facts
    return {
        "files": list(recording.paths),
        "version": facts.version,
        "kernel": facts.kernel,
        "host": facts.host,
        "begun": format_time(facts.begun),
        "interval": facts.interval,
        "budget": facts.budget,
        "group": dict(facts.group) if facts.group else None,
        "end": facts.ending,
        "looks": len(recording.looks),
        "processes": [
            {
                "target": target_keys(row.target),
                "armed_at": format_time(row.armed_at),
                "tracked_bytes": row.tracked_bytes,
                "end": row.ending,
            }
            for row in recording.processes
        ],
        "damage": list(recording.damage),
    }


_ADDRESSES = ("start", "end", "old_start", "new_start")


def value_of(value: Any) -> Any:  # noqa: ANN401 - any field of any record
    """Return a value as JSON has it: records as objects, addresses in hex."""
    if isinstance(value, Cost):
        return cost_keys(value)
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, float):
        return round(value, 6)
    if hasattr(value, "_fields"):
        return dict(_pair(name, getattr(value, name)) for name in value._fields)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [value_of(one) for one in value]
    return value


def _pair(name: str, value: Any) -> tuple[str, Any]:  # noqa: ANN401 - as above
    if name in ("time_ns", "begun_ns"):
        return name.removesuffix("_ns"), format_time(moment_of(value))
    if name in _ADDRESSES and isinstance(value, int):
        return name, format_address(value)
    return name, value_of(value)
