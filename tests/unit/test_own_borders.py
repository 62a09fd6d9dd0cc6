"""Which neighbours that look alike are one mapping of their program."""

from pagescan.model.mapping_set import own_borders, wholes
from pagescan.model.memory import Mapping

PAGE = 4096


def neighbours(name: str) -> list[Mapping]:
    """Return two mappings that touch and look alike."""
    return [
        Mapping(start * PAGE, (start + 4) * PAGE, "rw-p", 0, (0, 0), 0, name)
        for start in (16, 20)
    ]


def rows(parts: list[Mapping], *registered: bool) -> list[tuple[int, int]]:
    """Return the rows that a view shows: the address and the pages of each."""
    borders = own_borders(zip(parts, registered, strict=True))
    found = wholes(parts, range(len(parts)), borders)
    return [(one.start // PAGE, one.length // PAGE) for one, _ in found]


def test_a_border_of_tracking() -> None:
    """Registered memory beside memory that is not: tracking has divided a mapping."""
    assert rows(neighbours(""), True, False) == [(16, 8)]


def test_a_border_of_the_program() -> None:
    """Both are registered, and the kernel has not joined them: they are two."""
    assert rows(neighbours(""), True, True) == [(16, 4), (20, 4)]


def test_the_heap_is_one() -> None:
    """Earlier tracking has left it in two mappings; a process has one heap."""
    assert rows(neighbours("[heap]"), True, True) == [(16, 8)]
