"""Sorting processes into groups, and the limits on groups and series; pure."""

import pytest

from pagescan.exporter import groups, metrics
from pagescan.exporter.collector import complete, limited
from pagescan.exporter.groups import By, Group, Grouping
from pagescan.exporter.metrics import STATES, State, kind_of, state_of
from pagescan.exporter.readings import Populated
from pagescan.model.memory import Category, Mapping
from pagescan.target.group import Member, Selector, Tree


class Given(Selector):
    """Selects what a test says; `now` may change."""

    kind = "match"

    def __init__(self, name: str, now: list[Member]) -> None:
        self.name = name
        self.now = now

    def among(self, pids: object, known: object = ()) -> tuple[Member, ...]:  # noqa: ARG002
        return tuple(self.now)


def member(pid: int, name: str = "worker") -> Member:
    return Member(pid, 1000 + pid, name)


def test_a_process_is_in_the_first_group_that_selects_it() -> None:
    """So that a sum over the groups counts it once."""
    both = member(2)
    one = Given("one", [member(1), both])
    other = Given("two", [both, member(3)])
    grouped = Grouping([one, other], By.OPTION).now()
    pids = {
        group.name: [item.pid for item in many]
        for group, many in grouped.groups.items()
    }
    assert pids == {"one": [1, 2], "two": [3]}


def test_groups_beyond_the_limit_are_other() -> None:
    """The largest have a name, and keep it while larger ones come."""
    many = [member(pid, f"name-{pid % 5}") for pid in range(20)]
    many += [member(100, "alone")]
    grouping = Grouping([Given("all", many)], By.NAME, most=5)
    first = grouping.now()
    assert [group.name for group in first.groups] == [
        *(f"name-{number}" for number in range(5)),
        "other",
    ]
    assert first.folded == 1
    assert [item.pid for item in first.groups[groups.THE_REST]] == [100]
    many += [member(pid, "giant") for pid in range(200, 300)]
    second = grouping.now()
    assert Group("giant") not in second.groups
    assert second.folded == 2
    assert sum(map(len, second.groups.values())) == len(many)


def test_a_group_that_vanishes_makes_room() -> None:
    """The groups without processes are not among the groups, and free their place."""
    given = Given("all", [member(1, "a"), member(2, "b")])
    grouping = Grouping([given], By.NAME, most=1)
    assert list(grouping.now().groups) == [Group("a"), groups.THE_REST]
    given.now = [member(2, "b")]
    assert list(grouping.now().groups) == [Group("b")]
    given.now = []
    assert grouping.now().groups == {}


def test_the_name_of_a_process_becomes_text() -> None:
    """A name is bytes that the process chooses; a label is UTF-8."""
    given = Given("all", [member(1, "x\udcff"), member(2, "\n")])
    names = [group.name for group in Grouping([given], By.NAME).now().groups]
    assert names == ["\n", "x\\xff"]


class GivenTree(Tree):
    """A tree of which a test says the members."""

    def among(self, pids: object, known: object = ()) -> tuple[Member, ...]:  # noqa: ARG002
        return (member(self.pid, "postgres"), member(self.pid + 1, "other"))


def test_a_tree_has_the_name_of_its_root() -> None:
    """A pid is never a label; a second tree of that name has a number."""
    trees = [GivenTree(10, 1010), GivenTree(20, 1020)]
    grouping = Grouping(trees, By.OPTION)
    for _ in range(2):  # and they keep them
        assert [group.name for group in grouping.now().groups] == [
            "postgres",
            "postgres-2",
        ]


CASES = [
    (Category.PRESENT, State.PRESENT),
    (Category.PRESENT | Category.FILE, State.FILE),
    (Category.PRESENT | Category.FILE | Category.HUGE, State.HUGE),
    (Category.PRESENT | Category.PFNZERO | Category.HUGE, State.ZERO),
    (Category.SWAPPED, State.SWAPPED),
]


@pytest.mark.parametrize(("bits", "state"), CASES)
def test_states_are_disjoint(bits: Category, state: State) -> None:
    assert state_of(bits) is state


def test_a_group_has_at_most_25_series() -> None:
    """Memory, with swap; written bytes; processes: the rest is for reasons."""
    fixed = len(complete({}, swap=True)) + len(STATES) + 1
    assert fixed < metrics.MOST_SERIES
    reasons = {f"reason {number}": number for number in range(100)}
    room = metrics.MOST_SERIES - fixed
    rows = limited(reasons, room)
    assert len(rows) == room
    assert sum(rows.values()) == sum(reasons.values())


def test_reasons_with_the_most_bytes_have_a_name() -> None:
    assert limited({"a": 1, "b": 5, "c": 3, "d": 2}, 3) == {"b": 5, "c": 3, "other": 3}
    assert limited({"a": 1, "b": 5}, 2) == {"b": 5, "a": 1}
    assert limited({}, 1) == {}


def test_a_state_that_a_kind_lacks_counts_as_another() -> None:
    """No page is lost: the sum of the states stays what it was."""
    found = {("stack", State.HUGE): 2 << 20, ("stack", State.PRESENT): 4096}
    full = complete(found, swap=False)
    assert full["stack", State.PRESENT] == (2 << 20) + 4096
    assert sum(full.values()) == sum(found.values())
    assert ("anon", State.SWAPPED) not in full


def mapping(perms: str, name: str = "", inode: int = 0, device: int = 8) -> Mapping:
    return Mapping(0x1000, 0x2000, perms, 0, (device, 1), inode, name)


KINDS = [
    (mapping("rw-p", "[heap]"), "anon"),
    (mapping("rw-p", "[stack]"), "stack"),
    (mapping("r-xp", "/bin/cat", 7), "code"),
    (mapping("rwxp"), "code"),
    (mapping("r--p", "/bin/cat", 7), "file"),
    (mapping("rw-s", "/var/lib/x", 7), "file"),
    (mapping("rw-s", "/dev/zero (deleted)", 7, device=0), "shmem"),
    (mapping("rw-s", "/dev/shm/x", 7, device=9), "shmem"),
    (mapping("r-xp", "[vdso]"), None),
    (mapping("r--p", "[vvar]"), None),
]


@pytest.mark.parametrize(("item", "kind"), KINDS)
def test_kinds_of_memory(item: Mapping, kind: str | None) -> None:
    assert kind_of(item, frozenset({(0, 1)})) == kind


def test_pages_of_a_file_count_once_per_group() -> None:
    """They count as in the process that has most of them; private pages all count."""
    part = ((8, 1), 7, 0, 1 << 20)
    total = Populated()
    for size in (8192, 16384, 4096):
        total.add(
            Populated(
                {("anon", State.PRESENT): 4096},
                {part: ((("code", State.FILE), size),)},
            )
        )
    assert total.total() == {
        ("anon", State.PRESENT): 3 * 4096,
        ("code", State.FILE): 16384,
    }
