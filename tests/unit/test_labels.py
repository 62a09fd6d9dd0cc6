"""Each rule of the labels, on the mappings of programs as maps showed them."""

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pagescan.model.memory import Mapping, Range
from pagescan.model.results import TargetFacts
from pagescan.target.label_rules import RULES, Program, Told, labels_by, text_of
from pagescan.target.labels import Labels

if TYPE_CHECKING:
    from pagescan.target.process import Target


def mapping(text: str) -> Mapping:
    """Return the mapping of a line: START-END PERMS [NAME]; a path has an inode."""
    span, perms, *name = text.split(maxsplit=2)
    start, end = (int(word, 16) for word in span.split("-"))
    label = name[0] if name else ""
    return Mapping(start, end, perms, 0, (0, 0), int(label.startswith("/")), label)


JAVA = """\
f0000000-ffe00000 rw-p
ffe00000-ffe75000 rw-p /usr/lib/jvm/lib/server/classes.jsa
7f260c000000-7f260c05f000 rw-p
7f260c05f000-7f2610000000 ---p
7f262b000000-7f262b020000 rw-p
7f262b020000-7f262b400000 ---p
7f262b400000-7f262b410000 rw-p
7f262b410000-7f262f000000 ---p
7f262f000000-7f262fbcb000 rw-p /usr/lib/jvm/lib/server/classes.jsa
7f262fbcb000-7f2630000000 ---p
7f2630000000-7f2630010000 rw-p
7f2630010000-7f2670000000 ---p
7f268d400000-7f268d670000 rwxp
7f268d670000-7f2694938000 ---p
7f26a9cf9000-7f26a9cfa000 ---p
7f26a9cfa000-7f26a9dfa000 rw-p
7f26ab600000-7f26ab852000 r--p /usr/lib/jvm/lib/server/libjvm.so
7f26ab900000-7f26ab952000 r--p /usr/lib/x86_64-linux-gnu/libc.so.6
5599d008a000-5599d00d1000 rw-p [heap]"""

NODE = """\
0563e000-0565d000 rw-p /usr/bin/node
34165000-34586000 rw-p [heap]
124dfdc0000-124dfe00000 rw-p
1ac1cd81000-1ac1cdc1000 rw-p
2ac1cd81000-2ac1cdc1000 rwxp
7fadf1428000-7fadf1468000 rw-p
7fadf1500000-7fadf1540000 r--p /usr/lib/x86_64-linux-gnu/libc.so.6"""

PYTHON = """\
559757171000-559757172000 r--p /usr/bin/python3.11
7f2a3210a000-7f2a3230a000 rw-p
7f2a328d1000-7f2a328d2000 ---p
7f2a328d2000-7f2a330d2000 rw-p
7f2a330d2000-7f2a33205000 rw-p"""

GO = """\
00400000-0045b000 r-xp /tmp/gow
c000000000-c001800000 rw-p
c001800000-c004000000 ---p
7fa88532f000-7fa887600000 rw-p"""

POSTGRES = """\
559757171000-559757172000 r-xp /usr/lib/postgresql/15/bin/postgres
7f2a00000000-7f2a20000000 rw-s /dev/zero (deleted)
7f2a30000000-7f2a30100000 rw-s /dev/shm/PostgreSQL.2750188160
7f2a40000000-7f2a40100000 rw-s /SYSV0052e2c1 (deleted)"""

NAMED = """\
7f2a00000000-7f2a20000000 rw-p [anon:ring buffer]
7f2a30000000-7f2a30100000 rw-s [anon_shmem:queue]
7f2a40000000-7f2a40100000 rw-s /memfd:frames (deleted)
7f2a50000000-7f2a50100000 rw-s /memfd:java_heap (deleted)"""

JEMALLOC = """\
34165000-34586000 rw-p [heap]
7f2a40000000-7f2a40100000 r-xp /usr/lib/libjemalloc.so.2
7f2a50000000-7f2a50100000 r-xp /usr/lib/libc.so.6"""


def labelled(text: str, exe: str | None = None) -> dict[str, str]:
    """Return the first label of each mapping, by its start."""
    mappings = sorted(map(mapping, text.splitlines()))
    program = Program(exe, mappings)
    found: dict[str, str] = {}
    for rule in RULES:
        if rule.has(program):
            for at, item in enumerate(mappings):
                label = rule.label(program, at)
                if label:
                    found.setdefault(f"{item.start:x}", label)
    return found


@pytest.mark.parametrize(
    ("text", "exe", "labels"),
    [
        (
            JAVA,
            "/usr/bin/java",
            {
                "f0000000": "[java heap]",
                "ffe00000": "[java heap]",
                "7f260c000000": "[malloc arena]",
                "7f262b000000": "[java metaspace]",
                "7f262b400000": "[java metaspace]",
                "7f2630000000": "[java class space]",
                "7f268d400000": "[java code cache]",
                "5599d008a000": "[malloc main arena]",
            },
        ),
        (
            NODE,
            "/usr/bin/node",
            {
                "34165000": "[malloc main arena]",
                "124dfdc0000": "[v8 heap]",
                "2ac1cd81000": "[v8 code]",
            },
        ),
        (PYTHON, "/usr/bin/python3.11", {"7f2a3210a000": "[python objects?]"}),
        (GO, "/tmp/gow", {"c000000000": "[go heap]"}),
        (
            POSTGRES,
            "/usr/lib/postgresql/15/bin/postgres",
            {
                "7f2a00000000": "[postgres shared buffers]",
                "7f2a30000000": "[postgres dynamic shared memory]",
                "7f2a40000000": "[System V, key 0052e2c1]",
            },
        ),
        (
            NAMED,
            None,
            {
                "7f2a00000000": "[ring buffer]",
                "7f2a30000000": "[queue]",
                "7f2a40000000": "[memfd frames]",
                "7f2a50000000": "[memfd java_heap]",
            },
        ),
        (JEMALLOC, "/usr/bin/redis-server", {}),
    ],
)
def test_rules(text: str, exe: str | None, labels: dict[str, str]) -> None:
    """A mapping that a rule does not know has no label."""
    assert labelled(text, exe) == labels


@pytest.mark.parametrize("version", ["3.9", "3.13t"])
def test_a_python_with_other_arenas(version: str) -> None:
    """Up to 3.9 arenas have 256 KiB, and a build without the GIL has none."""
    assert labelled(PYTHON.replace("3.11", version), f"/usr/bin/python{version}") == {}


def test_the_same_names_in_another_program() -> None:
    """The rules of a runtime are asked only where its files are mapped."""
    assert labelled("f0000000-ffe00000 rw-p\n7f268d400000-7f268d670000 rwxp") == {}
    assert labelled("7f2a00000000-7f2a20000000 rw-s /dev/zero (deleted)") == {}


def test_runs_of_touching_mappings() -> None:
    """Each mapping of a run knows its first and its last; a file ends a run."""
    lines = JAVA.splitlines()[2:12]
    program = Program(None, [mapping(line) for line in lines])
    assert program.runs == [*[(0, 1)] * 2, *[(2, 5)] * 4, (6, 6), *[(7, 9)] * 3]


@pytest.mark.parametrize(
    ("start", "end", "label"),
    [(64, 128, "[java heap]"), (58, 128, "[java heap]"), (0, 128, None)],
)
def test_what_the_target_tells(start: int, end: int, label: str | None) -> None:
    """A mapping that was joined with a small neighbour is labelled, too."""
    told = [Told(Range(64, 128), "[java heap]")]
    made = Mapping(start, end, "rw-p", 0, (0, 0), 0, "")
    assert text_of(told, made) == label


ARENA = """\
55d000000000-55d000100000 r--p /usr/lib/x86_64-linux-gnu/libc.so.6
7f260c000000-7f260c05f000 rw-p
7f260c05f000-7f260c080000 rw-p
7f260c080000-7f2610000000 ---p"""


def test_an_arena_that_tracking_divides() -> None:
    """All parts of its memory have the label, and memory elsewhere has none."""
    parts = [mapping(line) for line in ARENA.splitlines()]
    assert label_texts(parts) == [None, "[malloc arena]", "[malloc arena]", None]
    assert label_texts(parts[:1] + parts[2:]) == [None, None, None]
    full = parts[2]._replace(end=0x7F2610000000)
    assert label_texts([*parts[:2], full])[1:] == ["[malloc arena]"] * 2


def label_texts(mappings: list[Mapping]) -> list[str | None]:
    """Return the label of each mapping by the rules alone."""
    program = Program("/bin/x", mappings)
    rules = [rule for rule in RULES if rule.has(program)]
    return [
        next((label.text for label in labels_by(rules, program, at)), None)
        for at in range(len(mappings))
    ]


def labels_of_python() -> Labels:
    """Return the labels of a process that is a Python."""
    facts = TargetFacts(os.getpid(), "python3", "/usr/bin/python3.11", 1, 4096)
    return Labels(cast("Target", SimpleNamespace(pid=2**22 + 1, facts=facts)))


def test_a_label_stays_as_long_as_its_mapping() -> None:
    """A mapping that grows beyond what its rule knows keeps its label."""
    labels = labels_of_python()
    code = mapping("559757171000-559757172000 r--p /usr/bin/python3.11")
    arena = mapping("7f2a3210a000-7f2a3230a000 rw-p")
    grown = arena._replace(end=arena.end + 4096)

    def texts(*mappings: Mapping) -> list[str | None]:
        return [label and label.text for label in labels.of([code, *mappings])][1:]

    assert texts(grown) == [None]
    assert texts(arena) == ["[python objects?]"]
    assert texts(grown) == ["[python objects?]"]
    assert texts(grown._replace(perms="r--p")) == [None]
    assert texts(grown) == [None]  # another mapping at the same address
    assert texts(arena) == ["[python objects?]"]
    assert texts() == []
    assert texts(grown) == [None]
