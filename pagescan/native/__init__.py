"""Calls the C shim, for all other folders: typed functions, one errno convention.

Every function raises `OSError` with the errno that the shim returned; `from_oserror` in
`pagescan.model.errors` explains it, given the step that failed. Addresses are bytes,
intervals half-open, columns are array('Q').

Each name is loaded at its first use: a keeper needs few of them. `__init__.pyi` has the
types.
"""

_HOME = {
    "ALL_PAGES": "types",
    "Attached": "process",
    "CATEGORY_BITS": "types",
    "Collapse": "huge",
    "Comparison": "copies",
    "Faults": "perf",
    "Columns": "types",
    "Deadline": "process",
    "KeptArenas": "arenas",
    "KeptOutput": "output",
    "LONGEST_SLICE": "pace",
    "LONGEST_TO_PROTECT": "pace",
    "MAX_STALL_NS": "pace",
    "Listed": "uffd",
    "MapsRows": "maps",
    "Masks": "types",
    "Meter": "pace",
    "Pace": "pace",
    "PageCounts": "pages",
    "PreparedScan": "scan",
    "Progress": "pace",
    "RangeSums": "pages",
    "Rule": "types",
    "Shares": "types",
    "Spans": "types",
    "Tracee": "tracee",
    "UnpackedLooks": "pages",
    "UFFD_FEATURES": "uffd",
    "UFFD_FORKS": "uffd",
    "Watch": "watch",
    "Windows": "types",
    "Writers": "writers",
    "WrittenPages": "pages",
    "address_of": "door",
    "attach": "process",
    "can_attach": "process",
    "compare_copies": "copies",
    "count_copies": "copies",
    "drain_faults": "perf",
    "inside": "regions",
    "join": "regions",
    "join_packed": "recording",
    "join_writers": "writers",
    "keep_malloc": "arenas",
    "keeping_the_processor": "pace",
    "launch": "tracee",
    "library": "door",
    "lost_samples": "perf",
    "mapping_begins": "maps",
    "mark_copies": "copies",
    "open_faults": "perf",
    "open_in_root": "files",
    "outside": "regions",
    "overlay": "regions",
    "pack": "recording",
    "parse_maps": "maps",
    "read_fork": "uffd",
    "read_maps": "maps",
    "read_memory": "maps",
    "read_pieces": "maps",
    "relabel": "regions",
    "same_memory": "perf",
    "scan_once": "scan",
    "share_ring": "perf",
    "stop_faults": "perf",
    "shares": "regions",
    "swapped_pages": "maps",
    "tally": "regions",
    "uffd_api": "uffd",
    "uffd_is_of": "uffd",
    "uffd_is_registered": "uffd",
    "uffd_open": "uffd",
    "uffd_protect": "uffd",
    "uffd_register": "uffd",
    "uffd_register_parts": "uffd",
    "uffd_unregister": "uffd",
    "unpack": "recording",
    "whole_units": "regions",
}

__all__ = [*sorted(_HOME)]  # noqa: PLE0604 - strings all the same


def __getattr__(name: str) -> object:
    """Load a name from its module at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not by importlib: -X importtime would not show the module.
    module = __import__(f"pagescan.native.{_HOME[name]}", fromlist=[name])
    value: object = getattr(module, name)
    globals()[name] = value
    return value
