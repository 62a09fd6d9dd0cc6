"""Remedies for copies, chosen by the functions that make them; pure, no I/O."""

import re
from collections.abc import Iterable, Mapping

from pagescan.model.units import format_size

_MUCH = 0.2
_WORTH_PAGES = 256
_COLLECTS = re.compile(
    r"gc_collect\w*|deduce_unreachable|(update|subtract|untrack)_\w+|visit_(decref|reachable)"
    r"|move_(legacy|unreachable)\w*|\w+_traverse"
)
_COUNTS = re.compile(
    r"\w+_dealloc|\w*iter_?next|_PyEval_EvalFrameDefault|_?Py_(Inc|Dec)[Rr]ef\w*"
    r"|\w+_(subscript|item|richcompare|getiter|lookup\w*)|PyObject_\w+|PyDict_\w+"
    r"|PyIter_\w+|_PyFunction_Vectorcall|\w*vectorcall\w*|sum|builtin_\w+"
)

COLLECTOR = (
    "the garbage collector of Python copies shared pages:"
    " call gc.freeze() in the parent before it forks"
)
COUNTING = (
    "reference counts of Python copy shared pages when objects are only read:"
    " keep such data in arrays (array, numpy, mmap), or start workers by another method"
)


def hints(
    functions: Iterable[tuple[str | None, int]], reserves: Mapping[str, int]
) -> list[str]:
    """Return remedies for the copies of forked children and of their parent.

    Args:
        functions: The functions that made copies in the children, with their pages.
        reserves: Per name of a parent, the bytes that its largest fork needs.
    """
    known = [(text, pages) for text, pages in functions if text]
    total = sum(pages for _, pages in known)
    found = []
    if total >= _WORTH_PAGES:
        for pattern, text in ((_COLLECTS, COLLECTOR), (_COUNTS, COUNTING)):
            pages = sum(pages for word, pages in known if pattern.fullmatch(word))
            if pages > _MUCH * total:
                found.append(text)
    servers = ("redis", "valkey", "keydb")
    stores = [size for name, size in reserves.items() if name.startswith(servers)]
    if any(stores):
        found.append(
            f"keep {format_size(max(stores))} free for a snapshot under this load,"
            " turn transparent huge pages off, or save on a replica, without a fork"
        )
    return found
