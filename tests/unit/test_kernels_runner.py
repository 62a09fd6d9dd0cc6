"""`make kernels`: which kernels it takes, and what its table shows."""

from pathlib import Path

from tests.kernels import vm
from tests.kernels.archive import numbers
from tests.kernels.run import KERNELS, Column, Wanted, table

RELEASES = sorted(
    [
        *("6.1.0-50-amd64", "6.12.117+deb13-amd64", "6.12.95+deb12-amd64"),
        *("6.12.9+deb12-amd64", "6.17.13+deb13-amd64", "6.16.12+deb13-amd64"),
    ],
    key=numbers,
)

REPORT = """<testsuites><testsuite>
<testcase classname="tests.live.test_swap" name="test_out[anon]"><properties>
<property name="judged" value="[1200, 0, 0]"/></properties></testcase>
<testcase classname="tests.live.test_swap" name="test_out[file]"><failure/></testcase>
<testcase classname="tests.live.test_swap" name="test_in"><skipped/></testcase>
</testsuite></testsuites>"""


def test_the_release_that_is_wanted() -> None:
    """A prefix matches whole numbers: 6.1 is not 6.12; 6.12.95 is newer than 6.12.9."""
    assert Wanted("", "6.1").of(RELEASES) == ["6.1.0-50-amd64"]
    oldest = Wanted("", "6.12", oldest=True).of(RELEASES)
    assert [numbers(release)[2] for release in oldest] == [9, 95, 117]
    assert Wanted("", "6.12").of(RELEASES) == oldest[::-1]
    assert Wanted("", "6.12.95").of(RELEASES) == ["6.12.95+deb12-amd64"]
    assert Wanted("", "7.3").of(RELEASES) == []


def test_a_project_that_no_machine_would_see() -> None:
    """A machine has its own /tmp, and sees the other folders of this one."""
    assert vm.own_folder(Path("/tmp/ci/clone")) == Path("/tmp")
    assert vm.own_folder(Path("/tmpfiles/clone")) is None


def test_what_ci_runs_has_a_kernel_of_each_sort() -> None:
    """CI runs a kernel that refuses, one that misses empty entries, and a new one.

    The second one stops with a BUG if a part of a file is unregistered.
    """
    quick = [it.prefix for it in KERNELS if it.quick]
    assert sorted(quick) == ["6.1", "6.12", "7.3"]


def test_the_table_says_what_happened(tmp_path: Path) -> None:
    """The table counts a failure, and names a kernel that was not available."""
    (tmp_path / "report.xml").write_text(REPORT)
    ran, lacking = Column("6.17"), Column("7.3", lacking="no way to the mirror")
    ran.take(tmp_path / "report.xml")
    assert ran.failures == ["test_swap::test_out[file]"]
    text = table([ran, lacking], "today")
    assert "| `test_swap::test_out` | 1 of 2 |" in text
    assert "| `test_swap::test_in` |  (1 skipped) |" in text
    assert "in excess | 1,200; 0; 0 |" in text
    assert "7.3: not available: no way to the mirror" in text
