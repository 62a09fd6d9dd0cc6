"""Labels of real programs: each kind of memory that a rule names is found in one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.target import maps
from pagescan.target.labels import Labels
from pagescan.target.process import Target
from tests import witness
from tests.conftest import HERE, PAGE, command

THREAD = """\
import ctypes, threading, time
def name():
    ctypes.CDLL(None).prctl(15, b"beat")  # PR_SET_NAME
    time.sleep(1e6)
threading.Thread(target=name, daemon=True).start()
print(flush=True)
keep = [object() for _ in range(1_000_000)]
time.sleep(1e6)
"""


@pytest.fixture
def run() -> Iterator[Callable[..., int]]:
    """Start a program; returns its pid when it has printed a line."""
    started = []

    def start(*words: str, waits: bool = True) -> int:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        if waits:
            process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def labels(pid: int) -> set[str]:
    """Return all labels of a process; those of its threads without the ids."""
    with Target.open(pid) as target:
        known = Labels(target).of(maps.read(target))
    texts = {label.text for label in known if label}
    return {
        text.rpartition(" ")[0] + "]" if text.startswith("[stack of ") else text
        for text in texts
    }


def test_python(run: Callable[..., int]) -> None:
    """A thread's stack by its name, the arenas of its objects, the main heap."""
    pid = run(sys.executable, "-c", THREAD)
    wanted = {"[stack of beat]", "[python objects?]", "[malloc main arena]"}
    witness.wait_for(lambda: wanted <= labels(pid))


OWN = """\
import ctypes, mmap, sys
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
own = mmap.mmap(-1, 4 << 20, flags=private)
own[:] = b"x" * len(own)
print(hex(ctypes.addressof(ctypes.c_char.from_buffer(own))), flush=True)
sys.stdin.read()
"""


def test_memory_that_a_python_program_maps_itself() -> None:
    """Nothing that the kernel shows tells it from arenas: a label says so, if any."""
    with subprocess.Popen(
        [sys.executable, "-c", OWN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        start = int(process.stdout.readline(), 16)
        (row,) = pagescan.maps(process.pid, [f"{start:#x}+4M"])
        result = command("maps", "-v", process.pid)
    assert row.label in (None, "[python objects?]")
    assert "[python objects]" not in result.stdout
    if row.label:
        assert "other memory of such a size looks the same" in result.stderr


@pytest.mark.needs("java")
def test_java(run: Callable[..., int], tmp_path: Path) -> None:
    """Heap, metaspace, code cache, and the stacks of its threads."""
    source = str(HERE / "targets/Steady.java")
    subprocess.run(["javac", "-d", str(tmp_path), source], check=True)
    pid = run("java", "-Xmx256m", "-cp", str(tmp_path), "Steady")
    wanted = {
        *("[java heap]", "[java code cache]", "[java metaspace]"),
        *("[java class space]", "[malloc arena]", "[stack of VM Thread]"),
    }
    witness.wait_for(lambda: wanted <= labels(pid))


@pytest.mark.needs("java")
def test_java_with_zgc(run: Callable[..., int], tmp_path: Path) -> None:
    """ZGC has its heap in a memfd."""
    source = str(HERE / "targets/Steady.java")
    subprocess.run(["javac", "-d", str(tmp_path), source], check=True)
    words = ["java", "-XX:+UseZGC", "-Xmx256m", "-cp", str(tmp_path), "Steady"]
    assert "[java heap]" in labels(run(*words))


@pytest.mark.needs("go")
def test_go(run: Callable[..., int], tmp_path: Path) -> None:
    """The arenas are the heap; goroutines' stacks in them are not threads' stacks."""
    program = str(tmp_path / "steady")
    place = {"HOME": str(tmp_path), "GOCACHE": str(tmp_path / "cache")}
    subprocess.run(
        ["go", "build", "-o", program, str(HERE / "targets/steady.go")],
        check=True,
        env={**os.environ, **place, "GO111MODULE": "off"},
    )
    pid = run(program)
    with Target.open(pid) as target:
        mappings = maps.read(target)
        known = Labels(target).of(mappings)
    low = [
        label.text if label else None
        for item, label in zip(mappings, known, strict=True)
        if item.start >> 32 == 0xC0 and item.perms == "rw-p"
    ]
    assert low
    assert set(low) == {"[go heap]"}


@pytest.mark.needs("node")
def test_node(run: Callable[..., int]) -> None:
    """V8 has chunks in places of its own."""
    code = "const keep = [...Array(1e6)].map(i => ({i})); console.log(keep.length);"
    pid = run("node", "-e", code + "setInterval(() => keep, 1000)")
    assert {"[v8 heap]", "[v8 code]"} <= labels(pid)


def test_a_part_of_a_mapping_has_the_label_of_the_whole(
    run: Callable[..., int],
) -> None:
    """A RANGE in the middle of a mapping: its rows and regions are labelled."""
    pid = run(sys.executable, "-c", "print(flush=True); input()")
    (heap,) = pagescan.maps(pid, ["[heap]"])
    assert heap.label == "[malloc main arena]"
    middle = f"{heap.mapping.start + PAGE}+{PAGE}"
    (row,) = pagescan.maps(pid, [middle])
    assert (row.pages, row.label) == (1, "[malloc main arena]")
    (region,) = command("scan", pid, middle, "--json").json()["regions"]
    assert region["label"] == "[malloc main arena]"


def test_a_later_mapping_at_the_same_address() -> None:
    """It has no label of its predecessor, though labels are kept for some seconds."""
    with Target.open(os.getpid()) as target:
        known = Labels(target)
        rows = maps.read(target)
        known.cover(rows)
        one = next(row for row in rows if row.name == "[heap]")
        assert known.cover([one])
        assert not known.cover([one._replace(name="/dev/shm/other")])
