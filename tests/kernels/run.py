"""`make kernels`: the tests of exactness, of the attach and of the refusals, by kernel.

    python -m tests.kernels.run                 all kernels; the table; 20 minutes
    python -m tests.kernels.run --quick         the kernels of .ci/run
    python -m tests.kernels.run --long          more tests, an hour per kernel
    python -m tests.kernels.run --only 6.17     one kernel
    python -m tests.kernels.run --list          print the kernels
    python -m tests.kernels.run --write FILE    also write the table to FILE

A kernel that is not available is named; with --require=all that is a failure. Exit
codes: 0, all passed; 1, a test or a machine failed; 2, --require=all and a kernel is
not available.
"""

import argparse
import compileall
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tests.kernels import vm
from tests.kernels.archive import Archive, UnavailableError, numbers

LOSSES = ("dontneed", "pageout")
_GONE = "tests/live/test_written_and_gone.py"
TESTS = (
    *(f"{_GONE}::test_each_kind_is_found_once[shmem-{how}]" for how in LOSSES),
    f"{_GONE}::test_each_kind_is_found_once[file-pageout]",
    f"{_GONE}::test_with_all_of_a_page_table[shmem]",
    f"{_GONE}::test_huge_pages_of_hugetlb",
    f"{_GONE}::test_got_and_protected_by_scan",
    f"{_GONE}::test_masks_of_all_sorts",
    f"{_GONE}::test_slices_and_threads_do_not_show",
    f"{_GONE}::test_what_was_never_armed_is_not_written",
    f"{_GONE}::test_commands[pageout]",
    "tests/native/test_attach.py::test_memory_stays_as_it_was",
    "tests/live/test_files_are_not_cut.py",
)
LONG_TESTS = (
    *("tests/live/test_written_and_gone.py", "tests/live/test_swap.py"),
    *("tests/live/test_hugetlb.py", "tests/live/test_memory_kinds.py"),
    *("tests/live/test_changing_mappings.py", "tests/live/test_without_a_store.py"),
    "tests/live/test_files_are_not_cut.py",
    "tests/native/test_attach.py::test_attach_is_not_noticed",
    "tests/native/test_attach.py::test_death_at_every_step",
    "tests/native/test_attach.py::test_memory_stays_as_it_was",
)
REFUSED = ("tests/kernels/refusals.py",)


HEAD = """\
# Other kernels

Kernels differ in what they report about absent memory, so the tests run under
several of them, emulated. `make kernels KERNELS_ARGS='--write docs/kernels.md'`
made this page; where a test passed, no page was missed and none was in excess.

""".splitlines()


_JUDGED = "written and gone: pages to be found; missed; in excess"
_SWITCHES = "a sleeping target's context switches, voluntary+other, before, after"


class Wanted(NamedTuple):
    """A kernel to run tests under.

    Attributes:
        name: Shown to the user.
        prefix: The beginning of its release.
        oldest: Take the oldest available release; otherwise the newest.
        quick: Whether .ci/run uses it, too.
        refused: The kernel cannot track: the refusals are tested.
    """

    name: str
    prefix: str
    oldest: bool = False
    quick: bool = False
    refused: bool = False

    def of(self, releases: Iterable[str]) -> list[str]:
        """Return the matching releases, best first, of those given oldest first."""
        exact = re.compile(re.escape(self.prefix) + r"(?!\d)")
        fit = [release for release in releases if exact.match(release)]
        return fit if self.oldest else fit[::-1]

    def tests(self, *, long: bool) -> tuple[str, ...]:
        """Return the tests to run under this kernel."""
        if self.refused:
            return REFUSED
        return LONG_TESTS if long else TESTS


KERNELS = (  # the likeliest to fail come first
    Wanted("6.1", "6.1", quick=True, refused=True),
    Wanted("7.3", "7.3", quick=True),
    Wanted("6.12, oldest", "6.12", oldest=True, quick=True),
    Wanted("6.12, newest", "6.12"),
    Wanted("6.17", "6.17"),
    Wanted("6.16", "6.16"),
)


@dataclass
class Column:
    """The results under one kernel.

    Attributes:
        head: The release; without one, the name of the kernel.
        cells: By test: the numbers of passed, failed and skipped.
        failures: The tests that failed.
        said: For the refusals: command, exit code, first line.
        judged: Pages to be found; pages missed; pages in excess.
        lacking: Why the kernel is not available; empty: it ran.
    """

    head: str
    cells: dict[str, list[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    said: list[list[object]] = field(default_factory=list)
    judged: list[int] = field(default_factory=lambda: [0, 0, 0])
    lacking: str = ""

    def take(self, report: Path) -> None:
        """Read pytest's report; source: its junit_family xunit2."""
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("name", "").partition("[")[0]
            place = case.get("classname", "").rpartition(".")[2]
            cell = self.cells.setdefault(f"{place}::{name}", [0, 0, 0])
            if case.find("skipped") is not None:
                cell[2] += 1
            elif any(case.find(kind) is not None for kind in ("failure", "error")):
                cell[1] += 1
                self.failures.append(f"{place}::{case.get('name')}")
            else:
                cell[0] += 1
            for item in case.iter("property"):
                self._note(item.get("name"), json.loads(item.get("value", "")))

    def _note(self, name: str | None, value: list[Any]) -> None:
        if name == "said":
            self.said.append(value)
        elif name == "judged":
            pairs = zip(self.judged, value, strict=True)
            self.judged = [one + more for one, more in pairs]


def run_under(archive: Archive, wanted: Wanted, tests: Sequence[str]) -> Column:
    """Boot the first available one of the releases, and run the tests there."""
    lacking = "the archive does not list it"
    for release in wanted.of(archive.releases):
        try:
            kernel = vm.prepare(archive, release)
        except UnavailableError as error:
            lacking = str(error)
            continue
        return _tested(kernel, tests)
    return Column(wanted.name, lacking=lacking)


_PATCHED = "Oops: int3"
_MORE_TRIES = 2, 2, 1  # processors; with one there is no race


def _died_of_the_emulator(ended: vm.Outcome, shared: Path) -> bool:
    """Whether the kernel met the emulator's race with code that patches itself.

    A processor meets the breakpoint that stands there while the code is replaced.
    That is most likely while it boots, before any test has run.
    """
    booting = not (shared / "output").exists()
    return ended.status is None and (booting or _PATCHED in ended.console)


def _tested(kernel: vm.Kernel, tests: Sequence[str]) -> Column:
    column = Column(kernel.release)
    words = [sys.executable, "-m", "tests.kernels.inside", *tests]
    with tempfile.TemporaryDirectory(prefix="pagescan-vm-") as folder:
        shared = Path(folder)
        ended = vm.boot(kernel, words, shared, memory="3G", limit=7200)
        for processors in _MORE_TRIES:
            if not _died_of_the_emulator(ended, shared):
                break
            said = f"{kernel.release}: the emulator let the kernel die: once more"
            print(f"{said}, with {processors} processors", file=sys.stderr)
            ended = vm.boot(
                kernel, words, shared, memory="3G", limit=7200, processors=processors
            )
        if (shared / "report.xml").exists():
            column.take(shared / "report.xml")
        if ended.status != 0:
            column.failures.append(f"exit status {ended.status}")
            print(ended.output[-6000:], file=sys.stderr)
    if ended.console:
        print(f"{kernel.release}: console:\n{ended.console[-3000:]}", file=sys.stderr)
    passed = sum(cell[0] for cell in column.cells.values())
    print(
        f"{kernel.release}: {passed} passed, {len(column.failures)} failed,"
        f" {ended.seconds:.0f} s",
        file=sys.stderr,
    )
    return column


def table(columns: Sequence[Column], day: str) -> str:
    """Return the results as Markdown."""
    ran = [column for column in columns if not column.lacking]
    ran.sort(key=lambda column: numbers(column.head))
    said = f"Run on {day}, by `make kernels`; a cell counts passed cases."
    lines = [*HEAD, said, *_tests_by_kernel([it for it in ran if not it.said])]
    for column in ran:
        if column.said:
            lines += ["", f"What each command answers on {column.head}:", ""]
            heads = "command", "exit code", "first line of stderr", _SWITCHES
            lines += [f"| {' | '.join(heads)} |", "|---|---|---|---|"]
            lines += [
                f"| `{words}` | {code} | {first} | {counts} |"
                for words, code, first, counts in column.said
            ]
    lines += [
        f"\n{column.head}: not available: {column.lacking}"
        for column in columns
        if column.lacking
    ]
    return "\n".join(lines) + "\n"


def _tests_by_kernel(columns: Sequence[Column]) -> list[str]:
    if not columns:
        return []
    heads = " | ".join(column.head for column in columns)
    lines = ["", f"| test | {heads} |", "|---|" + "---|" * len(columns)]
    for test in dict.fromkeys(test for column in columns for test in column.cells):
        cells = " | ".join(_cell(column.cells.get(test)) for column in columns)
        lines.append(f"| `{test}` | {cells} |")
    judged = " | ".join("{:,}; {}; {}".format(*it.judged) for it in columns)
    return [*lines, f"| {_JUDGED} | {judged} |"]


def _cell(counts: list[int] | None) -> str:
    if counts is None:
        return "-"
    passed, failed, skipped = counts
    said = f"{passed} of {passed + failed}" if passed or failed else ""
    return said + (f" ({skipped} skipped)" if skipped else "")


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="as .ci/run does")
    parser.add_argument("--long", action="store_true", help="more tests, hours in all")
    parser.add_argument("--only", metavar="PREFIX", help="one kernel: 6.17, 6.12.95")
    parser.add_argument("--list", action="store_true", help="print the kernels")
    parser.add_argument("--require", default="", help="all: a missing kernel fails")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="where to write the table"
    )
    parser.add_argument("tests", nargs="*", help="run these tests instead")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    archive = Archive()
    archive.cache.mkdir(parents=True, exist_ok=True)
    if options.list:
        print("\n".join(archive.releases))
        return 0
    if not vm.has_qemu():
        print("kernels: qemu-system-x86_64 is not installed", file=sys.stderr)
        return 2
    if own := vm.own_folder(Path.cwd()):
        print(
            f"kernels: a machine has {own} of its own: the project must lie elsewhere",
            file=sys.stderr,
        )
        return 2
    for folder in ("pagescan", "tests"):  # once here, and not in each machine
        compileall.compile_dir(folder, quiet=2)
    columns: list[Column] = []
    day = time.strftime("%Y-%m-%d")
    for wanted in _chosen(options):
        tests = options.tests or wanted.tests(long=options.long)
        try:
            columns.append(run_under(archive, wanted, tests))
        except UnavailableError as error:
            columns.append(Column(wanted.name, lacking=str(error)))
        if columns[-1].lacking:
            lacks = f"{wanted.name}: not available: {columns[-1].lacking}"
            print(f"kernels: {lacks}", file=sys.stderr)
        if options.write:
            options.write.write_text(table(columns, day))
    print(table(columns, day))
    if any(column.failures for column in columns):
        return 1
    return 2 if options.require == "all" and any(it.lacking for it in columns) else 0


def _chosen(options: argparse.Namespace) -> list[Wanted]:
    if options.only:
        named = [it for it in KERNELS if it.prefix == options.only]
        return named[-1:] or [Wanted(options.only, options.only)]
    return [it for it in KERNELS if it.quick or not options.quick]


if __name__ == "__main__":
    sys.exit(main())
