"""Keeps the memory that a block frees until its written pages are counted.

An allocator returns freed memory to the kernel, and then nobody can tell whether it was
written. So for the time of the block, glibc's malloc neither maps large blocks by
themselves nor shrinks its heap, and Python keeps its arenas of small objects. Freed
memory is used again first, as usual: a page counts once, however often it is used.

Not kept: memory that the block unmaps itself, and blocks that malloc has mapped before.
Afterwards glibc no longer adapts its threshold for large blocks (mallopt(3)).
"""

import contextlib
from collections.abc import Iterator

from pagescan.native import KeptArenas, keep_malloc

_depth = 0


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory during the block; blocks may be nested."""
    global _depth  # noqa: PLW0603 - a process has one malloc
    _depth += 1
    try:
        if _depth > 1:
            yield
            return
        with _malloc_kept(), contextlib.closing(KeptArenas()):
            yield
    finally:
        _depth -= 1


@contextlib.contextmanager
def _malloc_kept() -> Iterator[None]:
    keep_malloc(keep=True)
    try:
        yield
    finally:
        keep_malloc(keep=False)
