"""`who` at groups: each page of each member has its true writer."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan.attribution import group_writers
from pagescan.attribution.group_samples import GroupSamples
from pagescan.attribution.group_writers import GroupWriterWatch
from pagescan.attribution.samples import FaultSampler
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupFacts, GroupTick
from pagescan.target.process import Target
from tests import witness
from tests.authors import (
    Author,
    TickingGroup,
    Truth,
    compiled_authors,
    ended_authors,
    is_right,
    sampling,
)
from tests.conftest import PAGE, STRANGER, Result, checked

pytestmark = [pytest.mark.needs("tracking", "root")]
Run = Callable[..., Result]


@pytest.fixture
def program() -> Iterator[Path]:
    """The compiled target, at a path of its own: the path is the group."""
    with compiled_authors() as made:
        yield made


@pytest.fixture
def start(program: Path) -> Iterator[Callable[..., Author]]:
    with ended_authors() as begin:
        yield partial(begin, program)


class Group(TickingGroup):
    """A group whose writers are found in this process, tick by tick."""

    def __init__(
        self, program: Path, undo: contextlib.ExitStack, **options: Any
    ) -> None:
        self.writers = undo.enter_context(GroupWriterWatch(by="page", **options))
        super().__init__(program, self.writers, "who", undo)

    def tick(self) -> GroupTick:
        """Make one look at all members, and find their writers."""
        tick = super().tick()
        self.writers.add(tick)
        return tick

    def until_tracked(self, author: Author) -> None:
        self.until(
            lambda: any(
                member.member.pid == author.pid and member.tracking is not None
                for member in self.group.members.values()
            )
        )

    def until_attributed(self, author: Author) -> None:
        (key,) = (key for key in self.group.members if key[0] == author.pid)
        self.until(lambda: self.writers.members[key].totals.attributed)

    def until_gone(self, count: int) -> None:
        self.until(lambda: self.group.gone == count)

    def wrong(self, truths: dict[int, Truth]) -> dict[object, object]:
        """Return the pages whose writer is not the true one, of all processes."""
        self.last = self.tick()
        self.report = self.writers.report(GroupFacts("match", "authors"))
        found: dict[tuple[int, int], tuple[str, int]] = {}
        for run in self.report.runs:
            writer = ("", 0)
            if run.writer is not None:
                writer = str(run.writer.function), run.writer.threads[0].tid
                assert run.writer.pid == run.pid == run.writer.threads[0].pid
            for page in range(run.start, run.end, PAGE):
                found[run.pid, page] = writer
        return {
            (pid, page): (writer, found.get((pid, page)))
            for pid, truth in truths.items()
            for page, writer in truth.items()
            if (pid, page) not in found
            or not is_right(writer, found[pid, page], user=False)
        }


@pytest.fixture
def group(program: Path) -> Iterator[Callable[..., Group]]:
    with contextlib.ExitStack() as undo:
        yield lambda **options: Group(program, undo, **options)


@pytest.mark.needs("thp")
def test_every_way_to_write(
    start: Callable[[], Author], group: Callable[[], Group]
) -> None:
    """Two processes with the same addresses: the writers of each are its own."""
    one, other = start(), start()
    made = group()
    truths = {one.pid: one.say("all"), other.pid: other.say("all")}
    made.tick()
    truths[one.pid] |= one.say("again")
    assert made.wrong(truths) == {}
    report = made.report
    assert report.lost == 0
    missing = report.written - report.attributed
    assert report.kernel_or_other == missing < 1000 + 120  # of another process
    assert {facts.target.pid for facts in report.processes} == {one.pid, other.pid}
    assert report.target is None


def test_from_a_program(program: Path, start: Callable[[], Author]) -> None:
    """The public class gives each page of two processes its true writer."""
    one, other = start(), start()
    selector = pagescan.Match(str(program))
    with (
        pagescan.GroupWriterWatch(by="page") as writers,
        pagescan.track_group(selector, writers=writers) as tracking,
    ):
        with pytest.raises(RuntimeError, match=r"add\(\) comes first"):
            writers.report(selector)
        truths = {one.pid: one.say("again"), other.pid: other.say("again")}
        tick = tracking.look()
        writers.add(tick)
        report = writers.report(selector)
    assert report.group == ("match", str(program))
    assert report.ticks == 1
    assert report.written == sum(facts.summary.pages for facts, _ in tick.members)
    found = {
        (run.pid, page): (str(run.writer.function), run.writer.threads[0].tid)
        for run in report.runs
        if run.writer is not None
        for page in range(run.start, run.end, PAGE)
    }
    for pid, truth in truths.items():
        for page, writer in truth.items():
            assert is_right(writer, found[pid, page], user=False)
    assert writers.descriptors == 0


def test_a_member_that_comes(
    start: Callable[[], Author], group: Callable[[], Group]
) -> None:
    """It is taken in at a tick; from then on its writers are known."""
    one = start()
    made = group()
    new = start()
    made.until_tracked(new)
    truths = {new.pid: new.say("storm 200"), one.pid: one.say("again")}
    assert made.wrong(truths) == {}
    assert made.report.lost == 0


def test_a_member_that_goes(
    start: Callable[[], Author], group: Callable[[], Group]
) -> None:
    """Its writers stay, with their names; its events are closed."""
    one, other = start(), start()
    made = group()
    before = made.writers.descriptors
    truths = {other.pid: other.say("again")}
    made.until_attributed(other)
    other.process.kill()
    other.process.wait()
    made.until_gone(1)
    assert made.wrong(truths) == {}
    assert made.report.gone == 1
    (gone,) = (facts for facts in made.report.processes if facts.end == "exited")
    assert gone.summary.pages >= 500
    assert made.writers.descriptors < before
    assert one.say("again")


def test_members_that_went_long_ago(
    start: Callable[[], Author],
    group: Callable[[], Group],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writers of the oldest are dropped, and their pages still counted."""
    monkeypatch.setattr(group_writers, "MOST_GONE", 1)
    start()
    made = group()
    for number in (1, 2):
        author = start()
        made.until_tracked(author)
        author.say("again")
        made.until_attributed(author)
        author.process.kill()
        author.process.wait()
        made.until_gone(number)
    made.wrong({})
    rows = dict(made.report.fixed_rows)
    assert rows["(processes that ended earlier)"] >= 500
    assert made.writers.left_out == 1
    assert len(made.report.processes) == 2
    listed = sum(writer.pages for writer in made.report.writers)
    assert listed + sum(rows.values()) == made.report.written


def test_a_process_that_cannot_be_sampled(
    start: Callable[[], Author], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it stays open."""

    def refuse(*_: object) -> None:
        raise PagescanError("no more events")

    monkeypatch.setattr(FaultSampler, "add", refuse)
    author = start()
    with Target.open(author.pid) as target, GroupSamples(python=True) as samples:
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(PagescanError, match="no more events"):
            samples.expect(target)
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert samples.members == {}


def test_an_exec(program: Path, group: Callable[[], Group]) -> None:
    """A member that runs another program has the names of that program."""
    words = ["sh", "-c", f"read line; exec {program}"]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        author = Author.__new__(Author)
        author.process, author.pid = process, process.pid
        made = group()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        made.until(
            lambda: any(
                member.tracking is not None
                and member.tracking.target.facts.name == "authors"
                for member in made.group.members.values()
            )
        )
        truths = {author.pid: author.say("again")}
        assert made.wrong(truths) == {}
    finally:
        process.kill()
        process.communicate()


def test_nothing_is_left(start: Callable[[], Author], program: Path) -> None:
    """Descriptors and memory of the samples go with the group."""
    start()
    before = witness.descriptors(os.getpid())
    with contextlib.ExitStack() as undo:
        made = Group(program, undo)
        made.tick()
    assert witness.descriptors(os.getpid()) == before


# ---- the command -------------------------------------------------------------------


def running(*words: str) -> AbstractContextManager[Callable[[], Result]]:
    """Run `who`; yield once all are armed, with a function that ends it."""
    return sampling(sys.executable, "-m", "pagescan", "who", *words, "-i", "60")


def test_command(start: Callable[[], Author], program: Path) -> None:
    """The JSON is as the schema says, and its sums are right."""
    one, other = start(), start()
    with running("--match", str(program), "--json", "--by", "process") as who:
        one.say("again")
        other.say("again")
        result = who()
    assert result.code == 0, result.stderr
    document = checked(result.stdout)
    assert document["target"] is None
    assert document["group"] == {"kind": "match", "name": str(program)}
    rows = {row["pid"]: row for row in document["writers"]}
    assert rows.keys() == {one.pid, other.pid}
    for row in rows.values():
        assert (row["function"], row["process"]) == ("by_store", "authors")
        assert row["threads"][0]["pid"] == row["pid"]
    summary = document["summary"]
    assert sum(row["pages"] for row in rows.values()) == summary["attributed"]
    pages = sum(item["summary"]["pages"] for item in document["processes"])
    assert pages == summary["written"]


@pytest.mark.parametrize(
    ("by", "text"),
    [
        ("function", ",,authors +1,by_store,"),
        ("thread", "authors,by_store +"),
        ("mapping", ",,authors +1,by_store"),
        ("page", "authors,by_store,"),
    ],
)
def test_rows(start: Callable[[], Author], program: Path, by: str, text: str) -> None:
    """A row of several processes has no pid; the others have theirs."""
    one, other = start(), start()
    with running("--match", str(program), "--by", by, "--csv") as who:
        one.say("again")
        other.say("again")
        lines = who().stdout.splitlines()
    assert ",pid,process,function," in lines[0]
    assert [line for line in lines if text in line], lines
    if by in ("thread", "page"):
        for author in (one, other):
            assert [line for line in lines if f",{author.pid},authors,by_store" in line]


def test_profile(start: Callable[[], Author], program: Path, tmp_path: Path) -> None:
    """Each thread of the profile is in its process."""
    one, other = start(), start()
    file = tmp_path / "profile"
    words = ("--match", str(program), "--format", "firefox", "-o", str(file))
    with running(*words) as who:
        one.say("again")
        other.say("again")
        assert who().code == 0
    threads = json.loads(file.read_text())["threads"]
    own = {t["pid"]: t["processName"] for t in threads if t["name"] == "authors"}
    assert own == {str(a.pid): f"authors ({a.pid})" for a in (one, other)}


def test_tree(start: Callable[[], Author]) -> None:
    """A tree ends with its last process, and so does `who`."""
    author = start()
    with running("--tree", str(author.pid), "-i", "0.1") as who:
        author.process.kill()
        author.process.wait()
        result = who()
    assert result.code == 0
    assert "1 of the processes went" in result.stderr


@pytest.mark.needs("stranger")
def test_a_member_that_cannot_be_sampled(
    start: Callable[..., Author], program: Path, pagescan: Run
) -> None:
    """A user gets the own processes; each other one is named, with the reason."""
    start(STRANGER)
    start()
    code = (
        "import os, sys; from pagescan.cli import run; sys.argv = ['pagescan', 'who',"
        f" '--match', {str(program)!r}, '--duration', '0.3', '--json']; run()"
    )
    from tests.live.test_who import command_of, rights_of

    done = subprocess.run(
        [command_of(STRANGER)[0], "-c", code],
        capture_output=True,
        text=True,
        check=False,
        **rights_of(STRANGER),
    )
    assert done.returncode == 0, done.stderr
    assert "not tracked" in done.stderr
    document = checked(done.stdout)
    assert [item["why"] for item in document["untracked"] if item["start"] is None]
    assert len([p for p in document["processes"] if p["joined_at"]]) == 1


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--tree", "--", "true"), 2, "--tree and -- CMD exclude each other"),
        (("--tree",), 2, "TARGET or -- CMD is missing"),
        (("--tree", "1", "--match", "x"), 2, "exclude each other"),
        (("--match", "x", "4242"), 2, "--match and TARGET exclude each other"),
        (("--match", "x", "--oldest"), 2, "exclude each other"),
        (("1", "--by", "process"), 2, "--by process is for a group"),
        (("--match", "no-such-program-1"), 3, "no-such-program-1"),
    ],
)
def test_refusals(pagescan: Run, words: tuple[str, ...], code: int, text: str) -> None:
    result = pagescan("who", *words)
    assert (result.code, text in result.stderr) == (code, True), result.stderr
