"""`maps --ask-runtime`: a Java virtual machine tells what its memory is for."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.target.jvm import joined, told_in
from pagescan.target.label_rules import Told
from tests.conftest import HERE, Target, command

ANSWER = """
Heap:
 def new generation   total 19648K, used 1398K [0x300000000, 0x301550000, 0x301550000)
  eden space 17472K,   8% used [0x300000000, 0x30015db40, 0x301110000)
 tenured generation   total 43712K, used 0K [0x301550000, 0x304000000, 0x304000000)
Compressed class space mapped at: 0x00007f9b88000000-0x00007f9bc8000000, reserved
Card table byte_map: [0x00007f9c02ca8000,0x00007f9c02d28000] _byte_map_base: 0x0
 Prev Bits: [0x00007f9c02800000, 0x00007f9c02c00000)
 Next Bits: [0x00007f9c02400000, 0x00007f9c02800000)
CodeHeap 'non-profiled nmethods': size=120036Kb used=58Kb
 bounds [0x00007f9becec7000, 0x00007f9bed137000, 0x00007f9bf4400000]
CodeHeap 'non-nmethods': size=5692Kb used=1081Kb max_used=1096Kb free=4610Kb
 bounds [0x00007f9bec938000, 0x00007f9becba8000, 0x00007f9becec7000]

GC Heap History (20 events):
 garbage-first heap   total 262144K, used 5253K [0x0000000000001000, 0x0000000000002000)
Events (250 events):
 bounds [0x0000000000001000, 0x0000000000002000, 0x0000000000003000]
"""


def test_answer_is_read() -> None:
    """Neighbours for one purpose are one range; events of the past do not count."""
    assert [(hex(told.range.start), told.text) for told in joined(told_in(ANSWER))] == [
        ("0x300000000", "[java heap]"),
        ("0x7f9b88000000", "[java class space]"),
        ("0x7f9bec938000", "[java code cache]"),
        ("0x7f9c02400000", "[java mark bits]"),
        ("0x7f9c02ca8000", "[java card table]"),
    ]
    heap = joined(told_in(ANSWER))[0]
    assert isinstance(heap, Told)
    assert heap.range.length == 64 << 20


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    folder = tmp_path_factory.mktemp("classes")
    subprocess.run(
        ["javac", "-d", str(folder), str(HERE / "targets/Steady.java")], check=True
    )
    return folder


@pytest.fixture
def machine(classes: Path) -> Iterator[int]:
    """A Java program whose heap lies where no rule recognises it."""
    words = ["java", "-XX:-UseCompressedOops", "-XX:+UseSerialGC", "-Xmx64m"]
    process = subprocess.Popen(
        [*words, "-cp", str(classes), "Steady"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate()
    assert process.returncode == 0


def heap_of(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [row for row in rows if row["label"] == "[java heap]"]


@pytest.mark.needs("java")
def test_heap_that_no_rule_recognises(machine: int) -> None:
    """Only the machine knows it: its size is that of -Xmx, its place that of jcmd."""
    assert heap_of(command("maps", machine, "--json").json()["mappings"]) == []
    result = command("maps", machine, "--json", "--ask-runtime", "-v")
    heap = heap_of(result.json()["mappings"])
    # The kernel may join it with a neighbour to one mapping.
    assert 64 << 20 <= sum(int(str(row["bytes"])) for row in heap) < 70 << 20
    assert "by the rule: the Java virtual machine itself says so" in result.stderr
    other = subprocess.run(
        ["jcmd", str(machine), "GC.heap_info"],
        capture_output=True,
        text=True,
        check=True,
    )
    places = [int(place, 16) for place in re.findall(r"\[0x([0-9a-f]+)", other.stdout)]
    low, high = int(str(heap[0]["start"]), 16), int(str(heap[-1]["end"]), 16)
    assert low <= min(places) < max(places) < high
    rows = pagescan.maps(machine, ask_runtime=True)
    assert sum(row.bytes for row in rows if row.label == "[java heap]") >= 64 << 20


@pytest.mark.needs("java")
def test_nothing_is_asked_without_the_option(machine: int) -> None:
    """The machine has no thread for questions until somebody asks."""

    def listens() -> bool:
        tasks = Path(f"/proc/{machine}/task").iterdir()
        names = [(task / "comm").read_text().strip() for task in tasks]
        return any(name.startswith("Attach") for name in names)

    command("maps", machine, "-v")
    assert not listens()
    command("maps", machine, "--ask-runtime")
    assert listens()


def test_other_programs_are_refused() -> None:
    """No signal is sent to a process that is not such a machine."""
    result = command("maps", os.getpid(), "--ask-runtime")
    assert result.code == 3
    assert "is not a Java virtual machine" in result.stderr


def test_a_program_that_sigquit_would_end_is_not_asked(tmp_path: Path) -> None:
    """It maps the library, and runs no machine; jcmd sends the signal nevertheless."""
    library = tmp_path / "libjvm.so"
    library.write_bytes(bytes(4096))
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'r+b')\n"
        "memory = mmap.mmap(file.fileno(), 0); print(flush=True); sys.stdin.read()"
    )
    jcmd = tmp_path / "jcmd"
    jcmd.write_text("#!/bin/sh\nkill -QUIT $1\n")
    jcmd.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", code, library],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        path = f"{tmp_path}:{os.environ['PATH']}"
        result = command("maps", process.pid, "--ask-runtime", env={"PATH": path})
        process.communicate()
    assert process.returncode == 0
    assert result.code == 3
    assert "has no handler of SIGQUIT" in result.stderr


@pytest.mark.needs("java")
def test_a_machine_without_a_handler_is_asked_where_it_listens(classes: Path) -> None:
    """With -Xrs it has no handler, and listens from its start."""
    with subprocess.Popen(
        ["java", "-Xrs", "-Xmx64m", "-cp", str(classes), "Steady"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = command("maps", process.pid, "--ask-runtime", "-v")
        process.communicate()
    assert process.returncode == 0
    assert "the Java virtual machine itself says so" in result.stderr


@pytest.mark.needs("java")
def test_without_jcmd(machine: int, tmp_path: Path) -> None:
    """The hint says how to install it; a jcmd without an answer is quoted."""
    result = command("maps", machine, "--ask-runtime", env={"PATH": str(tmp_path)})
    assert (result.code, "needs jcmd" in result.stderr) == (1, True)
    assert "hint: apt install" in result.stderr
    program = tmp_path / "jcmd"
    program.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    program.chmod(0o755)
    result = command("maps", machine, "--ask-runtime", env={"PATH": str(tmp_path)})
    assert result.code == 1
    assert "jcmd got no answer from" in result.stderr
    assert "not today" in result.stderr


def test_labels_that_nobody_sees_are_not_asked_for() -> None:
    result = command("maps", os.getpid(), "--ask-runtime", "-c", "start")
    assert result.code == 2
    assert "needs the column label" in result.stderr


@pytest.mark.needs("tracking", "java")
def test_watch_asks_at_the_start(machine: int) -> None:
    """The heap has its label in each form that shows labels, and only if it asks."""
    words = ("watch", machine, "-n", "2", "-i", "0.2")
    by_mapping = (*words, "--by", "mapping", "--json")
    for asks in ((), ("--ask-runtime",)):
        lines = command(*by_mapping, *asks).stdout.splitlines()
        rows = [row for line in lines for row in json.loads(line)["mappings"]]
        assert bool(heap_of(rows)) is bool(asks)
    plain = command(*words, "-c", "+label", "--ask-runtime")
    assert "[java heap]" in plain.stdout


@pytest.mark.needs("tracking")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["{pid}"], "--ask-runtime needs the column label: -c +label"),
        (["{pid}", "--csv"], "--ask-runtime needs the column label: -c +label"),
        (["--tree", "{pid}", "--json"], "--ask-runtime does not go with a group"),
        (["--json", "--", "true"], "--ask-runtime does not go with -- CMD"),
    ],
)
def test_watch_refuses_to_ask_in_vain(words: list[str], why: str) -> None:
    """Where it would have no effect, it is a usage error, and nothing is asked."""
    filled = [word.format(pid=os.getpid()) for word in words]
    result = command("watch", "--ask-runtime", *filled)
    assert result.code == 2
    assert why in result.stderr


@pytest.mark.needs("tracking")
def test_watch_asks_only_a_java_virtual_machine(target: Callable[..., Target]) -> None:
    """Another target is refused, and stays as it was."""
    made = target("m=anon,pages=4,fill=1")
    result = command("watch", made.pid, "--ask-runtime", "--json", "-n", "1")
    assert result.code == 3
    assert "is not a Java virtual machine" in result.stderr
