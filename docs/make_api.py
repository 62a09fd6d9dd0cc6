"""Writes docs/api.md from the docstrings of all public names; --check only compares.

griffe2md makes the text, one object after another.
"""

import re
import sys
from pathlib import Path

import griffe
from griffe2md import ConfigDict, render_object_docs

HERE = Path(__file__).parent
PAGE = HERE / "api.md"

INTRODUCTION = """\
# API reference

Made from the docstrings by `make docs`; how to use it is in the [guide](guide.md).
Addresses and lengths are bytes, intervals are half-open, columns are 64-bit integers.
Every example here is run by the tests; 4242 stands for the pid of a process.
"""

CONTENTS = {
    "Looking at a process": (
        "scan",
        "maps",
        "Query",
    ),
    "Tracking what it writes": (
        "track",
        "Tracking",
        "Look",
    ),
    "What this process writes itself": (
        "written_pages",
        "WrittenPages",
    ),
    "GetWriteWatch()": ("writewatch.WriteWatch",),
    "Sessions: tracking that outlives its caller": (
        "start_session",
        "sessions",
        "look_at_session",
        "end_session",
        "Session",
    ),
    "Groups of processes": (
        *("Tree", "Cgroup", "Unit", "Container", "Match", "Selector"),
        *("scan_group", "maps_group"),
        *("track_group", "GroupTracking"),
        *("start_group_session", "look_at_group_session", "end_group_session"),
        *("GroupLook", "GroupTick", "GroupScan", "GroupMaps"),
        *("MemberLook", "ProcessFacts", "MemberUntracked"),
    ),
    "Who wrote": (
        "WriterWatch",
        "GroupWriterWatch",
        "WriterReport",
        "model.writers.Writer",
        "model.writers.WriterThread",
        "model.writers.WrittenRun",
    ),
    "Copies of forked children": (
        *("CopyCounter", "CopyWatch", "GroupCopyWatch"),
        "copy_reports",
        "CopyReport",
        "model.copies.CopySummary",
        "model.copies.ForkCopies",
        "model.copies.SideCopies",
        "model.copies.Copies",
        "model.copies.ProcessCopies",
    ),
    "Checkpoints": (
        "dump_plan",
        "acknowledge",
        "changed",
        "Plan",
        "read_plan",
        "checkpoint.binary.BinaryPlan",
        "Action",
    ),
    "Recordings": (
        "record",
        "open_recording",
        "open_fleet",
        "recording.api.OpenRecording",
        "Recording",
        "recording.records.RecordedLook",
        "recording.records.RecordedMapping",
        "recording.records.RecordedProcess",
        "recording.records.RecordedFunction",
        "recording.records.RecordedThread",
        "recording.records.RecordedWriters",
        "recording.records.WriterCount",
        "recording.records.RecordingFacts",
        "recording.tables.MappingRow",
        "recording.tables.TimelineRow",
        "recording.tables.HeatRow",
        "recording.tables.AgesRow",
        "recording.tables.WorkingSetRow",
        "recording.tables.PhaseRow",
        "recording.tables.Migration",
        "recording.tables.WritersView",
        "recording.tables.WriterRow",
        "recording.tables.ProcessRow",
    ),
    "Metrics": ("MemoryCollector",),
    "Answers": (
        "Batch",
        "Region",
        "Mapping",
        "model.results.MappingCounts",
        "model.results.MappingTable",
        "model.results.Summary",
        "Category",
        "Range",
        "model.memory.Untracked",
        "model.results.Cost",
    ),
    "pytest": ("pytest_plugin.dirty_pages",),
    "Errors": (
        "PagescanError",
        "SessionError",
        "SessionLostError",
        "UsageError",
        "TargetError",
        "NoSuchTargetError",
        "UnsuitableTargetError",
        "AccessDeniedError",
        "KernelUnsupportedError",
    ),
}

MEMBERS: dict[str, list[str]] = {
    "Mapping": ["length", "shared", "label"],
    "Batch": [
        *("regions", "pages", "summary", "by_mapping", "table"),
        *("to_pandas", "to_polars", "to_arrow"),
    ],
    "Query": [],
    "Session": ["name"],
    "Selector": [],
    "Tree": ["of"],
    "Cgroup": [],
    "Unit": [],
    "Container": [],
    "Match": [],
    "CopyCounter": [
        *("pump", "inputs", "is_over", "report", "close"),
        *("untracked", "notes", "lost", "user_only", "ring_bytes"),
    ],
    "CopyWatch": [],
    "GroupCopyWatch": [],
    "Tracking": ["look", "written", "close"],
}
"""What of a class is for its users; the others are shown whole."""

NOTHING = [""]
"""The members of a class of which none is shown; [] would show the inherited ones."""

STYLE = ConfigDict(
    docstring_style="google",
    docstring_section_style="list",
    heading_level=3,
    filters=["!^_", "!^packed"],  # looks as the file has them
    group_by_category=False,
    members_order="source",
    merge_init_into_class=True,
    separate_signature=True,
    show_signature_annotations=True,
    show_bases=True,
    show_category_heading=False,
    show_if_no_docstring=False,
    show_object_full_path=False,
    show_root_full_path=False,
    show_root_members_full_path=False,
    signature_crossrefs=False,
    summary=False,
)


def _defined(named: griffe.Object | griffe.Alias) -> griffe.Object:
    """Return the object itself of a name that the package hands on."""
    return named.final_target if isinstance(named, griffe.Alias) else named


def reference() -> str:
    """Return the text of the page."""
    package = griffe.load(
        "pagescan", search_paths=[str(HERE.parent)], docstring_parser="google"
    )
    parts = [INTRODUCTION]
    for title, names in CONTENTS.items():
        parts.append(f"## {title}\n")
        for name in names:
            style = STYLE.copy()
            if name in MEMBERS:
                style["members"] = MEMBERS[name] or NOTHING
            parts.append(render_object_docs(_defined(package[name]), style))
    # Links to anchors that do not exist in the page.
    linked = re.sub(r"\[([^\[\]]+)\]\(#[^)]*\)", r"\1", "\n".join(parts))
    text = "\n".join(line.rstrip() for line in linked.splitlines())
    text = re.sub(r"</?code>", "`", text)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip() + "\n"


def main() -> int:
    """Write the page, or check that the existing one is up to date."""
    text = reference()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif text != PAGE.read_text():
        sys.stderr.write("docs/api.md is not what the docstrings say\n")
        sys.stderr.write("hint: make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
