"""The commands on a live process: their output, and that they leave nothing."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import PAGE, SANITIZED, Result, Target, checked, command

Start = Callable[..., Target]
Run = Callable[..., Result]

DEFAULT = "start end pages written file present swapped mapping"


def _addresses(made: Target, name: str, first: int, last: int) -> str:
    low = made.ranges[name][0]
    return f"{low + first * PAGE:#x}-{low + (last + 1) * PAGE:#x}"


@pytest.mark.needs("tracking")
class TestScan:
    """The operations of the proposal one by one, judged by pagemap words."""

    def test_present_and_holes(self, target: Start) -> None:
        """Present pages are required; holes are found by excluding present pages."""
        made = target("m=anon,pages=64")
        made.write("m", {1, 2, 3, 40})
        low, high = made.ranges["m"]
        where = _addresses(made, "m", 0, 63)
        found = command(
            "scan", made.pid, where, "--require", "present", "--json"
        ).json()
        assert made.pages(found, "m") == witness.present(made.pid, low, high)
        holes = command(
            "scan", made.pid, where, "--exclude", "present", "--json"
        ).json()
        assert made.pages(holes, "m") == set(range(64)) - {1, 2, 3, 40}

    def test_any_and_return(self, target: Start, tmp_path: Path) -> None:
        """Any of two categories; neighbours are joined on the returned ones."""
        made = target(f"m=file,pages=32,file={tmp_path}/f", "z=anon,pages=32")
        made.tell("read m 0-7")
        made.write("m", {3})
        found = command(
            *("scan", made.pid, _addresses(made, "m", 0, 7), "--json"),
            *("--any", "file,swapped", "--return", "file"),
        ).json()
        assert made.pages(found, "m") == set(range(8)) - {3}
        assert found["summary"]["categories"] == {"file": 7}
        joined = command(
            "scan",
            made.pid,
            _addresses(made, "m", 0, 7),
            "--return",
            "present",
            "--json",
        ).json()
        assert joined["summary"]["regions"] == 1

    def test_zero_page(self, target: Start) -> None:
        """A page that was only read is the zero page."""
        made = target("m=anon,pages=32")
        made.tell("read m 4-9")
        found = command(
            "scan",
            made.pid,
            _addresses(made, "m", 0, 31),
            "--require",
            "pfnzero",
            "--json",
        ).json()
        assert made.pages(found, "m") == set(range(4, 10))

    @pytest.mark.needs("thp")
    def test_huge(self, target: Start) -> None:
        """A page of a transparent huge page is HUGE as long as that is not split."""
        made = target("m=thp,pages=1024,fill=1")
        found = command("scan", made.pid, "--require", "huge", "--json").json()
        assert made.pages(found, "m") == set(range(1024))

    def test_max_pages(self, target: Start) -> None:
        """Exactly the first N pages are returned."""
        made = target("m=anon,pages=64,fill=1")
        where = _addresses(made, "m", 0, 63)
        found = command("scan", made.pid, where, "--max-pages", 10, "--json").json()
        assert made.pages(found, "m") == set(range(10))

    def test_a_limit_beyond_all_numbers_of_pages(self, armed: Start) -> None:
        """It is no limit, of pages or of time; a sample has one."""
        made = armed("m=anon,pages=16,fill=1")
        where = _addresses(made, "m", 0, 15)
        for count in (2**63, 2**64, 10**30):
            for more in ((), ("--wp",)):
                words = ("scan", made.pid, where, "--max-pages", count, *more, "--json")
                assert made.pages(command(*words).json(), "m") == set(range(16))
        result = command("who", made.pid, "--sample", 2**64)
        assert (result.code, "from 1 to 1000000000" in result.stderr) == (2, True)
        assert command("diff", "--rearm", "--max-stall", "9999999999").code == 0
        assert command("disarm", made.pid, "--max-stall", "9999999999").code == 0
        assert not witness.registered(made.pid)

    def test_written_needs_arming(self, target: Start) -> None:
        """Without a session no page is `written`, and stderr tells how to start one."""
        made = target("m=anon,pages=16,fill=1")
        result = command("scan", made.pid, "--require", "written", "--json")
        assert result.json()["regions"] == []
        assert f"hint: pagescan arm {made.pid}" in result.stderr

    def test_get_and_protect_in_one_step(self, armed: Start) -> None:
        """--wp protects the pages that it returns, and no others."""
        made = armed("m=anon,pages=64,fill=1")
        made.write("m", set(range(20, 40)))
        where = _addresses(made, "m", 0, 63)
        words = ("scan", made.pid, where, "--require", "written", "--json")
        first = command(*words, "--wp", "--max-pages", 5).json()
        assert made.pages(first, "m") == set(range(20, 25))
        rest = command(*words).json()
        assert made.pages(rest, "m") == set(range(25, 40))
        assert rest["session"]["since"] is None
        assert witness.written(made.pid, *made.ranges["m"]) == set(range(25, 40))

    def test_get_and_protect_scattered(self, armed: Start) -> None:
        """Written pages between others are returned once each."""
        made = armed("m=anon,pages=64,fill=1")
        written = {*range(0, 64, 3), 1}
        made.write("m", written)
        where = _addresses(made, "m", 0, 63)
        words = ("scan", made.pid, where, "--require", "present", "--json", "--wp")
        limited = command(*words, "--max-pages", 4).json()
        assert made.pages(limited, "m") == {0, 1, 2, 3}
        assert limited["summary"]["categories"]["written"] == 3
        assert witness.written(made.pid, *made.ranges["m"]) == written - {0, 1, 3}
        done = command(*words).json()
        assert done["summary"]["pages"] == 64
        assert made.pages(done, "m") == set(range(64))
        found = {
            int(region["start"], 16) + page * 4096
            for region in done["regions"]
            if "written" in region["categories"]
            for page in range(region["pages"])
        }
        low = made.ranges["m"][0]
        assert {(address - low) // 4096 for address in found} == written - {0, 1, 3}
        assert witness.written(made.pid, *made.ranges["m"]) == set()

    def test_protect_only(self, armed: Start) -> None:
        """--wp-only prints the summary alone, and holes are never protected."""
        made = armed("m=anon,pages=64")
        made.write("m", {1, 2, 60})
        where = _addresses(made, "m", 0, 63)
        line = command("scan", made.pid, where, "--wp-only").stdout
        assert line.startswith("64 pages (256 KiB) in ")
        assert line.endswith(" listed, and protected except for holes\n")
        done = command("scan", made.pid, where, "--wp-only", "--json").json()
        assert done["regions"] == []
        assert done["summary"]["pages"] == 64
        assert witness.written(made.pid, *made.ranges["m"]) == set()
        # A marker in a hole would show as a swap-like entry.
        assert not any(witness.words(made.pid, *made.ranges["m"])[3:60])
        made.write("m", {2, 30})
        found = command("scan", made.pid, "--require", "written", "--json").json()
        assert made.pages(found, "m") == {2, 30}

    def test_written_is_unknown_where_nothing_is_tracked(self, target: Start) -> None:
        """By mapping, as in `maps`: null, until the mapping is armed."""
        made = target("m=anon,pages=8,fill=1")
        words = ("scan", made.pid, _addresses(made, "m", 0, 7), "--by", "mapping")
        (row,) = command(*words, "--json").json()["mappings"]
        assert (row["counts"]["present"], row["counts"]["written"]) == (8, None)
        assert command("arm", made.pid).code == 0
        made.write("m", {3})
        (row,) = command(*words, "--json").json()["mappings"]
        assert (row["counts"]["present"], row["counts"]["written"]) == (8, 1)
        assert command("disarm", made.pid).code == 0

    def test_raw_categories(self, armed: Start) -> None:
        """The kernel's own bits: an empty entry of an armed mapping says WRITTEN."""
        made = armed("m=anon,pages=16")
        made.write("m", {4})
        where = _addresses(made, "m", 0, 15)
        raw = command(
            *("scan", made.pid, where, "--json", "--raw-categories"),
            *("--return", "written,present"),
        ).json()
        assert made.pages(raw, "m") == set(range(16))
        read = command("scan", made.pid, where, "--require", "written", "--json").json()
        assert made.pages(read, "m") == {4}


def test_maps_agrees_with_smaps(target: Start) -> None:
    """The present pages of each mapping equal Rss in smaps."""
    made = target("m=anon,pages=64", "s=shmem,pages=64", "f=anon,pages=8,fill=1")
    made.write("m", set(range(0, 64, 3)))
    made.write("s", {1, 2})
    rows = command("maps", made.pid, "--json").json()["mappings"]
    rss = witness.smaps(made.pid, "Rss")
    for row in rows:
        start = int(row["start"], 16)
        if not row["mapping"].startswith("[v"):
            assert row["counts"]["present"] * PAGE == int(rss[start].split()[0]) << 10
        assert row["counts"]["written"] is None
    assert {int(row["start"], 16) for row in rows} == {
        start for start in rss if start < 1 << 63
    }


@pytest.mark.needs("tracking")
def test_maps_of_an_armed_target(armed: Start) -> None:
    """`written` is counted where a mapping is tracked."""
    made = armed("m=anon,pages=64,fill=1")
    made.write("m", {1, 2})
    rows = command("maps", made.pid, "--json").json()["mappings"]
    counts = {int(row["start"], 16): row["counts"]["written"] for row in rows}
    low = made.ranges["m"][0]
    assert counts[max(start for start in counts if start <= low)] == 2
    named = {row["mapping"]: row["counts"]["written"] for row in rows}
    assert named["[vdso]"] is None


@pytest.mark.needs("tracking")
def test_session_from_arm_to_disarm(target: Start) -> None:
    """Armed, listed, looked at, disarmed: nothing is left in the target or on disk."""
    made = target("m=anon,pages=64,fill=1")
    before = Path(f"/proc/{made.pid}/maps").read_text()
    armed = command("arm", made.pid, "--json")
    cost = armed.json()["cost"]
    assert cost["stopped_ns"] > 0
    assert (cost["huge_restored"], cost["huge_lost"]) == (0, 0)
    assert witness.registered(made.pid) > 0
    (listed,) = command("sessions", "--json").json()["sessions"]
    assert listed["target"]["pid"] == made.pid
    rss = int(witness.status(listed["keeper_pid"], "VmRSS").split()[0])
    assert SANITIZED or rss <= 15 << 10
    made.write("m", {3})
    by_mapping = command("diff", "--by", "mapping", "--json").json()["mappings"]
    assert sum(row["counts"]["written"] for row in by_mapping) >= 1
    assert command("disarm", made.pid, "--json").json()["sessions"][0]["name"] == str(
        made.pid
    )
    assert witness.registered(made.pid) == 0
    with contextlib.suppress(FileNotFoundError):  # gone, or not reaped yet
        assert witness.status(listed["keeper_pid"], "State")[0] == "Z"
    assert witness.status(made.pid, "TracerPid") == "0"
    assert Path(f"/proc/{made.pid}/maps").read_text() == before


@pytest.mark.needs("tracking")
def test_selection_is_kept(armed: Start) -> None:
    """A session tracks its selection, and new mappings that match it."""
    made = armed("m=anon,pages=8,fill=1", "s=shmem,pages=8,fill=1", options=("[anon]",))
    made.write("m", {1})
    made.write("s", {1})
    look = command("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {1}
    assert made.pages(look, "s") == set()
    assert {region["mapping"] for region in look["regions"]} == {"[anon]"}


@pytest.mark.needs("tracking")
def test_stopped_target_stays_stopped(target: Start) -> None:
    """A target under SIGSTOP can be armed, and is not woken."""
    made = target("m=anon,pages=8,fill=1")
    with witness.stopped(made.pid):
        assert command("arm", made.pid).code == 0
        assert witness.status(made.pid, "State")[0] == "T"
    made.write("m", {2})
    assert made.pages(command("diff", made.pid, "--json").json(), "m") == {2}


@pytest.mark.needs("tracking")
class TestWatch:
    """Each look of `watch`, each way in which it ends, and CMD."""

    def test_counts(self, target: Start) -> None:
        """N looks are N lines; the last has the end and the totals."""
        made = target("m=anon,pages=8,fill=1")
        result = command("watch", made.pid, "-i", "0.1", "-n", 3, "--json")
        lines = [checked(line) for line in result.stdout.splitlines()]
        assert [line["tick"] for line in lines] == [1, 2, 3]
        assert [line["end"] for line in lines] == [None, None, "count"]
        assert all(0 < line["interval_ns"] < 60e9 for line in lines)
        assert lines[1]["session"]["since"] == lines[0]["time"]
        assert lines[2]["totals"]["pages"] == sum(
            line["summary"]["pages"] for line in lines
        )
        assert "3 looks" in result.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, target: Start, number: signal.Signals) -> None:
        """Ctrl-C is the normal end: exit code 0, totals, nothing left in the target."""
        made = target("m=anon,pages=8,fill=1")
        watch = subprocess.Popen(
            [sys.executable, "-m", "pagescan", "watch", str(made.pid), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watch.stderr is not None
        while b"watching" not in watch.stderr.readline():
            pass
        made.write("m", {1, 5})
        watch.send_signal(number)
        out, _ = watch.communicate(timeout=60)
        last = checked(out.decode().splitlines()[-1])
        assert watch.returncode == 0
        assert last["end"] == "interrupted"
        assert made.pages(last, "m") == {1, 5}
        assert witness.registered(made.pid) == 0

    def test_target_that_ends(self, target: Start) -> None:
        """When the target ends, the watch ends at once."""
        made = target("m=anon,pages=8,fill=1")
        watch = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pagescan",
                "watch",
                str(made.pid),
                "--json",
                "-i60",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watch.stderr is not None
        while b"watching" not in watch.stderr.readline():
            pass
        made.tell("quit")
        out, said = watch.communicate(timeout=60)
        last = checked(out.decode().splitlines()[-1])
        assert last["end"] == "exited"
        assert last["totals"] is not None
        assert 0 < last["unseen_ns"] < 60e9
        assert b"; the last look was " in said
        assert watch.returncode == 0

    def test_exec_of_a_target(self, target: Start) -> None:
        """A target that execs ends the watch, with a summary."""
        made = target("m=anon,pages=8,fill=1")
        watch = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pagescan",
                "watch",
                str(made.pid),
                "--json",
                "-i.1",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watch.stderr is not None
        assert made.process.stdin is not None
        assert made.process.stdout is not None
        while b"watching" not in watch.stderr.readline():
            pass
        made.process.stdin.write("exec\n")
        made.process.stdin.flush()
        assert made.process.stdout.readline().startswith('{"pid"')
        out, _ = watch.communicate(timeout=60)
        last = checked(out.decode().splitlines()[-1])
        assert last["end"] == "exec"
        assert last["totals"] is not None
        assert 0 < last["unseen_ns"] < 60e9
        assert watch.returncode == 0

    def test_command(self) -> None:
        """CMD is tracked from its first instruction; its output goes to stderr."""
        result = command("watch", "-i", "0.1", "--json", "--", "sh", "-c", "echo hello")
        assert result.code == 0
        lines = [checked(line) for line in result.stdout.splitlines()]
        assert lines[-1]["end"] == "exited"
        assert "hello" in result.stderr
        assert "hello" not in result.stdout

    def test_exec_of_a_command_is_followed(self) -> None:
        """CMD may exec: the watch attaches again, says so, and goes on to the end."""
        # Not Python: under a sanitizer that is a script, and one exec more.
        script = 'read _; exec bash -c "read _; date +%s.%N; true"'
        watch = subprocess.Popen(
            [
                *(sys.executable, "-m", "pagescan", "watch", "-i", "0.1", "--json"),
                *("--", "sh", "-c", script),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watch.stdin is not None
        assert watch.stdout is not None
        lines = [checked(watch.stdout.readline())]
        watch.stdin.write("exec\n")
        watch.stdin.flush()
        while lines[-1]["target"]["name"] == "sh":
            lines.append(checked(watch.stdout.readline()))
        before = len(lines) - 1
        while len(lines) < before + 3:
            lines.append(checked(watch.stdout.readline()))
        watch.stdin.write("end\n")
        watch.stdin.flush()
        lines.extend(checked(line) for line in watch.stdout)
        _, said = watch.communicate()
        assert said.count("was exec'd: attached again") == 1
        assert [line["tick"] for line in lines] == list(range(1, len(lines) + 1))
        names = [line["target"]["name"] for line in lines]
        assert names == ["sh"] * before + ["bash"] * (len(lines) - before)
        assert [line["end"] for line in lines[:-1]] == [None] * (len(lines) - 1)
        assert lines[-1]["end"] == "exited"
        ended = float(re.findall(r"^\d+\.\d+$", said, re.MULTILINE)[0])
        assert datetime.fromisoformat(lines[-1]["time"]).timestamp() >= ended

    def test_exec_and_exit(self) -> None:
        """If the program has ended at the time of the look, that is no exec."""
        result = command("watch", "--json", "-i", "0.3", "--", "sh", "-c", "exec true")
        assert result.code == 0
        assert checked(result.stdout.splitlines()[-1])["end"] == "exited"

    def test_end_is_no_exec(self) -> None:
        """An end during a look is no exec, though memory goes before the process."""
        script = "import os; os.read(0, 1)"
        for _ in range(20):
            readable, writable = os.pipe()
            watch = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pagescan", "watch", "--json", "-i.002"),
                    *("--", sys.executable, "-c", script),
                ],
                stdin=readable,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            os.close(readable)
            assert watch.stdout is not None
            watch.stdout.readline()
            os.close(writable)
            out, _ = watch.communicate(timeout=60)
            assert json.loads(out.splitlines()[-1])["end"] == "exited"

    def test_stdin_is_the_commands(self) -> None:
        """CMD reads the standard input of pagescan."""
        readable, writable = os.pipe()
        os.write(writable, b"from stdin\n")
        os.close(writable)
        result = command("watch", "--", "cat", stdin=readable)
        os.close(readable)
        assert "from stdin" in result.stderr


@pytest.mark.needs("tracking")
def test_demo_is_exact() -> None:
    """The demo finds exactly the pages that the workload wrote."""
    check = command("demo", "--seconds", "1.5", "--json").json()["check"]
    assert check["expected"] > 4000
    assert check == {**check, "found": check["expected"], "missed": 0, "extra": 0}


def test_doctor_names_its_rows() -> None:
    """Each row with "no" has a fix, and the exit code follows from the rows."""
    result = command("doctor", "--json")
    document = result.json()
    names = [check["name"] for check in document["checks"]]
    assert len(set(names)) == len(names)
    assert all(check["fix"] for check in document["checks"] if check["ok"] is False)
    assert result.code == (0 if document["can_track"] else 5)


@pytest.mark.needs("tracking")
def test_the_way_of_the_attach_is_said(target: Start) -> None:
    """`doctor` and `watch -v` tell the method of the attach."""
    rows = {row["name"]: row for row in command("doctor", "--json").json()["checks"]}
    assert "to restore it" in rows["attach-child"]["why"]
    made = target("m=anon")
    watched = command("watch", "-v", "-n1", "-i.01", made.pid)
    assert "to restore it" in watched.stderr


def test_schema_is_the_shipped_one() -> None:
    """`schema` prints the schema that the tests use."""
    printed = json.loads(command("schema").stdout)
    assert printed["$schema"].endswith("2020-12/schema")
    assert printed == json.loads(Path("pagescan/schema.json").read_text())


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("bash", "zsh", "fish")
    ],
)
def test_completion_is_a_script(shell: str, tmp_path: Path) -> None:
    """The script parses in its shell."""
    script = tmp_path / "script"
    script.write_text(command("completion", shell).stdout)
    subprocess.run([shell, "-n", str(script)], check=True)
