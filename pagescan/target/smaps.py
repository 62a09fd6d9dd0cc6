"""Reads fields of /proc/PID/smaps, mapping by mapping, with pauses.

It is slow: the kernel walks every page of the process. It holds the target's mmap lock
for a whole mapping, which cannot be divided; the meter counts that time.
"""

from collections.abc import Iterator, Sequence

from pagescan import native
from pagescan.target.living import memory_dir

# Shorter than the text of a mapping: a read that returns at least this much looks at
# one mapping and no more, and then releases the lock. Source: seq_read_iter().
_READ = 256


def smaps_field(
    pid: int, field: bytes, meter: native.Meter | None = None
) -> dict[int, int]:
    """Return one field, in bytes, by the start of the mapping."""
    found = smaps_fields(pid, [field], native.Pace(), meter or native.Meter())
    return {start: sizes[field] for start, sizes in found.items() if field in sizes}


def smaps_fields(
    pid: int, fields: Sequence[bytes], pace: native.Pace, meter: native.Meter
) -> dict[int, dict[bytes, int]]:
    """Return fields, in bytes, by the start of the mapping.

    Args:
        pid: The process.
        fields: Their names, as the kernel writes them.
        pace: After calls that held the lock this long, it pauses.
        meter: Counts the calls, and the longest one.
    """
    wanted = set(fields)
    found: dict[int, dict[bytes, int]] = {}
    sizes: dict[bytes, int] = {}
    for line in _lines(pid, pace, meter):
        key, _, value = line.partition(b":")
        if key in wanted:
            sizes[key] = int(value.split()[0]) << 10
        elif b"-" in key:
            sizes = found[int(key.partition(b"-")[0], 16)] = {}
    return found


def _lines(pid: int, pace: native.Pace, meter: native.Meter) -> Iterator[bytes]:
    rest = b""
    with open(f"{memory_dir(pid)}/smaps", "rb", buffering=0) as smaps:
        file = smaps.fileno()
        for piece in native.read_pieces(file, meter, slice_max=_READ, pace=pace):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
    if rest:
        yield rest
