"""Writes one JSON document: the keys of the report, and one line per region."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from pagescan import __version__
from pagescan.model.batch import Batch
from pagescan.model.memory import Category, Mapping, Untracked
from pagescan.model.results import (
    Action,
    Cost,
    Estimate,
    MappingCounts,
    Output,
    Report,
    SessionFacts,
    Summary,
)
from pagescan.model.units import format_address, format_time
from pagescan.render import SCHEMA, Rows, target_keys
from pagescan.render.batch_text import ADDRESS, Key, chunks


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one document: in watch as one line, elsewhere one line per region."""
    between = ", " if report.tick is not None else ",\n    "
    opened = "[" if report.tick is not None else "[\n    "
    closed = "]" if report.tick is not None else "\n  ]"
    head = json.dumps(header_keys(report))
    key, parts = row_chunks(report, rows, output, "", "", between)
    first = next(parts, None)
    stream.write(head[:-1] + ("," if report.tick is not None else ",\n "))
    stream.write(f' "{key}": ')
    if first is None:
        stream.write("[]")
    else:
        stream.write(opened + first)
        stream.writelines(between + part for part in parts)
        stream.write(closed)
    tail = json.dumps(trailer_keys(report))
    stream.write(", " + tail[1:] + "\n")


def header_keys(report: Report) -> dict[str, Any]:
    """Return the keys before the rows."""
    keys: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": report.kind,
        "version": __version__,
        "time": format_time(report.time),
        "target": target_keys(report.target) if report.target else None,
        "session": session_keys(report.session),
        "summary": summary_keys(report.summary),
    }
    if report.tick is not None:
        totals = report.totals
        keys["tick"] = report.tick
        keys["end"] = report.end
        keys["totals"] = (
            {**summary_keys(totals), "target_share": share_key(report.total_share)}
            if totals is not None
            else None
        )
        keys["estimated"] = estimate_keys(report.estimate)
    if report.plan is not None:
        keys["epoch"] = report.plan.epoch
        keys["parent"] = report.plan.parent
        keys["plan"] = dict(report.plan.pages)
        keys["left_out"] = [untracked_keys(item) for item in report.plan.left_out]
    return keys


def trailer_keys(report: Report) -> dict[str, Any]:
    """Return the keys behind the rows."""
    return {
        "untracked": [untracked_keys(item) for item in report.untracked],
        "cost": cost_keys(report.cost),
    }


def row_chunks(
    report: Report, rows: Rows, output: Output, before: str, behind: str, between: str
) -> tuple[str, Iterator[str]]:
    """Return the key of the rows, and the text of their objects in chunks.

    Args:
        report: The report that the rows belong to.
        rows: The rows.
        output: Says what one row is.
        before: Text in front of the first key of each object.
        behind: Text behind each object.
        between: Text between two objects; the caller adds it between two chunks.
    """
    if isinstance(rows, Batch):
        batch, size = rows, rows.page_size
        tails = _Tails(batch, actions=report.plan is not None)

        def template(key: Key) -> str:
            length, bits, owner = key
            return (
                f'{{{before}"start": "{ADDRESS}", "end": "{ADDRESS}"'
                f', "pages": {length // size}, "bytes": {length}'
                f"{tails[bits, owner]}{behind}"
            )

        texts = chunks(
            batch,
            template,
            by_page=output.by == "page",
            between=between,
            progress=output.progress,
        )
        return "regions", texts
    by_mapping = report.kind == "maps" or output.by == "mapping"
    texts = (f"{{{before}{json.dumps(mapping_keys(row))[1:]}{behind}" for row in rows)
    return "mappings" if by_mapping else "regions", texts


class _Tails(dict[tuple[int, int], str]):
    """A cache of the end of a region's object, as a template, by bits and mapping."""

    def __init__(self, batch: Batch, *, actions: bool) -> None:
        super().__init__()
        self._batch = batch
        self._actions = actions

    def __missing__(self, key: tuple[int, int]) -> str:
        bits, owner = key
        batch = self._batch
        mapping = batch.mappings[owner] if owner >= 0 else None
        label = json.dumps(mapping.label if mapping else None)
        perms = json.dumps(mapping.perms if mapping else None)
        if self._actions:
            what, new = f'"plan": "{Action(bits).word}"', ""
        else:
            what = f'"categories": {json.dumps(Category(bits).names)}'
            new = f', "new": {json.dumps(owner in batch.new)}'
        tail = f', {what}, "mapping": {label}, "perms": {perms}{new}}}'
        tail = tail.replace("%", "%%")
        self[key] = tail
        return tail


def session_keys(session: SessionFacts | None) -> dict[str, Any] | None:
    """Return the JSON keys of a session; None without one."""
    if session is None:
        return None
    return {
        "name": session.name,
        "armed_at": format_time(session.armed_at),
        "since": format_time(session.since) if session.since else None,
        "method": session.method,
    }


def summary_keys(summary: Summary) -> dict[str, Any]:
    """Return the JSON keys of totals."""
    return {
        "regions": summary.regions,
        "pages": summary.pages,
        "bytes": summary.bytes,
        "categories": dict(summary.categories),
    }


def estimate_keys(estimate: Estimate | None) -> dict[str, Any] | None:
    """Return the JSON keys of an estimate; None: the listed regions are complete."""
    if estimate is None:
        return None
    return {
        "pages": estimate.pages,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": 0.95,
        "share": round(estimate.share, 4),
    }


def untracked_keys(item: Untracked) -> dict[str, Any]:
    """Return the JSON keys of a part that is not tracked."""
    return {
        "start": format_address(item.start),
        "end": format_address(item.end),
        "mapping": item.mapping,
        "why": item.why,
    }


def cost_keys(cost: Cost) -> dict[str, Any]:
    """Return the JSON keys of a command's cost."""
    return {
        "stopped_ns": cost.stopped_ns,
        "scan_ns": cost.scan_ns,
        "max_wait_ns": cost.max_wait_ns,
        "ioctls": cost.ioctls,
        "pages_walked": cost.pages_walked,
        "mappings_added": cost.mappings_added,
        "target_share": share_key(cost.target_share),
        "huge_restored": cost.huge_restored,
        "huge_lost": cost.huge_lost,
    }


def share_key(share: float | None) -> float | None:
    """Return a share as a number with five decimals; None stays None."""
    return None if share is None else round(share, 5)


def mapping_keys(row: MappingCounts) -> dict[str, Any]:
    """Return the JSON keys of a mapping and its counts."""
    mapping: Mapping = row.mapping
    counts = ("present", "file", "swapped", "pfnzero", "huge", "guard", "written")
    return {
        "start": format_address(mapping.start),
        "end": format_address(mapping.end),
        "pages": row.pages,
        "bytes": row.bytes,
        "mapping": mapping.label,
        "perms": mapping.perms,
        "offset": mapping.offset,
        "inode": mapping.inode,
        "counts": {name: row.counts.get(name) for name in counts},
    }
