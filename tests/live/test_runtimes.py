"""Programs that reserve terabytes, move memory, or keep their stacks in the heap."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import HERE, Result, Target, command

pytestmark = pytest.mark.needs("tracking")
TABLES = 16 << 10  # KiB: limit of a session's page tables


@dataclass
class Runtime:
    """A program that works, and answers each line with its rounds and faults."""

    process: subprocess.Popen[str]

    def checks(self) -> tuple[int, int]:
        """Return its rounds so far, and the faults that its checks found."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        rounds, faults = self.process.stdout.readline().split()
        return int(rounds), int(faults)

    def goes_on(self) -> None:
        """Assert that it makes rounds, and that its checks have found no fault."""
        before, _ = self.checks()
        witness.wait_for(lambda: self.checks()[0] > before)
        assert self.checks()[1] == 0

    def tables(self) -> int:
        """Return the size of its page tables, in KiB."""
        return int(witness.status(self.process.pid, "VmPTE").split()[0])


PROGRAMS = {
    "java": ["java", "-Xmx256m"],
    "java-zgc": ["java", "-XX:+UseZGC", "-Xmx256m"],
    "go": [],
}


@pytest.fixture(
    params=[
        pytest.param("java", marks=pytest.mark.needs("java")),
        pytest.param("java-zgc", marks=pytest.mark.needs("java")),
        pytest.param("go", marks=pytest.mark.needs("go")),
    ]
)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    """Each of the running programs."""
    words = PROGRAMS[request.param]
    if words:
        source = str(HERE / "targets/Steady.java")
        subprocess.run(["javac", "-d", str(tmp_path), source], check=True)
        words = [*words, "-cp", str(tmp_path), "Steady"]
    else:
        words = [str(tmp_path / "steady")]
        build = ["go", "build", "-o", *words, str(HERE / "targets/steady.go")]
        place = {"HOME": str(tmp_path), "GOCACHE": str(tmp_path / "cache")}
        subprocess.run(
            build, check=True, env={**os.environ, **place, "GO111MODULE": "off"}
        )
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    made = Runtime(process)
    made.goes_on()
    yield made
    made.goes_on()
    assert witness.status(process.pid, "TracerPid") == "0"
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_it_works_on(runtime: Runtime) -> None:
    """Its own checks find no fault while it is armed, looked at and disarmed."""
    pid = runtime.process.pid
    before = runtime.tables()
    for _ in range(5):
        result = command("arm", "-v", pid)
        assert result.code == 0, result.stderr
        assert "restore it" in result.stderr, "the plain method would not be safe"
        runtime.goes_on()
        look = command("diff", pid, "--rearm", "--json").json()
        assert look["summary"]["pages"] > 0
        runtime.goes_on()
        assert runtime.tables() - before < TABLES
        assert command("disarm", pid).code == 0
        runtime.goes_on()


def test_address_sanitizer(tmp_path: Path) -> None:
    """It reserves 20 TB: arming ends, costs nothing, and is exact."""
    program = tmp_path / "mkmem"
    source = str(HERE / "targets/mkmem.c")
    words = ["-fsanitize=address", "-fno-sanitize-recover", "-g", "-o", str(program)]
    subprocess.run(["cc", *words, source, "-pthread"], check=True)
    process = subprocess.Popen(
        [str(program), "m=anon,pages=512,fill=1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    made = Target(process, process.pid, {})
    made.where("m")
    assert int(witness.status(made.pid, "VmSize").split()[0]) > 10 << 30
    before = int(witness.status(made.pid, "VmPTE").split()[0])
    result: Result = command("arm", made.pid)
    assert result.code == 0, result.stderr
    for pages in ({3, 500}, {77}):
        made.write("m", pages)
        look = command("diff", made.pid, "--rearm", "--json").json()
        assert made.pages(look, "m") == pages
    assert int(witness.status(made.pid, "VmPTE").split()[0]) - before < TABLES
    assert command("disarm", made.pid).code == 0
    made.tell("quit")
    process.communicate()
    assert process.returncode == 0
