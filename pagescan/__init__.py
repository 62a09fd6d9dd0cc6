"""pagescan: which pages a live process has written, exactly and almost for free.

This is the library behind the commands. Each public name is loaded at its first use,
so that `import pagescan` costs next to nothing. `__init__.pyi` has the types.
"""

__version__ = "0.1.0"

_HOME = {
    "AccessDeniedError": "model.errors",
    "Action": "model.results",
    "Batch": "model.batch",
    "Category": "model.memory",
    "Cgroup": "target.group",
    "Container": "target.group",
    "CopyCounter": "attribution.copy_counter",
    "CopyReport": "model.copies",
    "CopyWatch": "attribution.copies",
    "GroupCopyWatch": "attribution.group_copies",
    "GroupLook": "model.groups",
    "GroupMaps": "model.groups",
    "GroupScan": "model.groups",
    "GroupTick": "model.groups",
    "GroupTracking": "session.group_api",
    "GroupWriterWatch": "attribution.group_writers",
    "KernelUnsupportedError": "model.errors",
    "Look": "model.looks",
    "Mapping": "model.memory",
    "Match": "target.group",
    "MemberLook": "model.groups",
    "MemberUntracked": "model.groups",
    "MemoryCollector": "exporter.collector",
    "NoSuchTargetError": "model.errors",
    "PagescanError": "model.errors",
    "Plan": "checkpoint.plan",
    "ProcessFacts": "model.groups",
    "Query": "scanner.query",
    "Range": "model.memory",
    "Recording": "recording.store",
    "Region": "model.memory",
    "Selector": "target.group",
    "Session": "session.record",
    "SessionError": "model.errors",
    "SessionLostError": "model.errors",
    "TargetError": "model.errors",
    "Tracking": "tracking.tracking",
    "Tree": "target.group",
    "Unit": "target.group",
    "UnsuitableTargetError": "model.errors",
    "UsageError": "model.errors",
    "WriterReport": "model.writers",
    "WriterWatch": "attribution.writers",
    "WrittenPages": "tracking.own_writes",
    "acknowledge": "checkpoint.api",
    "changed": "checkpoint.api",
    "copy_reports": "attribution.copy_loop",
    "dump_plan": "checkpoint.api",
    "end_group_session": "session.group_api",
    "end_session": "session.api",
    "look_at_group_session": "session.group_api",
    "look_at_session": "session.api",
    "maps": "session.api",
    "maps_group": "session.group_api",
    "open_fleet": "fleet.api",
    "open_recording": "recording.api",
    "read_plan": "checkpoint.binary",
    "record": "recording.api",
    "scan": "session.api",
    "scan_group": "session.group_api",
    "sessions": "session.api",
    "start_group_session": "session.group_api",
    "start_session": "session.api",
    "track": "session.api",
    "track_group": "session.group_api",
    "written_pages": "tracking.own_writes",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - strings all the same


def __getattr__(name: str) -> object:
    """Load a public name from its module at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"pagescan.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
