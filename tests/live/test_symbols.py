"""Names of code: each target prints where its functions are, and is its own witness."""

import io
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.attribution import go_table, jit_maps
from pagescan.attribution.elf import BadElfError, Elf, Functions, open_elf
from pagescan.attribution.symbols import JIT, Name, Symbols
from pagescan.model.errors import NoSuchTargetError
from tests import witness
from tests.conftest import HERE, STRANGER, run_as_stranger

Truth = dict[int, str]
Start = Callable[..., tuple[subprocess.Popen[bytes], Truth]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program, and read where it says that its functions are."""
    started = []

    def begin(
        *words: str | Path, **more: object
    ) -> tuple[subprocess.Popen[bytes], Truth]:
        process = subprocess.Popen(  # type: ignore[call-overload]
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more
        )
        started.append(process)
        truth = {}
        while line := process.stdout.readline().decode().strip():
            address, _, name = line.partition(" ")
            truth[int(address, 16)] = name
        return process, truth

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def build(folder: Path, *words: str, name: str = "named.c") -> Path:
    """Compile a target; its compiler is chosen by the suffix."""
    source, program = HERE / "targets" / name, folder / "named"
    compiler = {
        ".c": ["cc", "-o", str(program), str(source)],
        ".cpp": ["c++", "-o", str(program), str(source)],
        ".rs": ["rustc", "-o", str(program), str(source)],
        ".go": ["go", "build", "-o", str(program), str(source)],
    }[Path(name).suffix]
    subprocess.run([*compiler, *words], check=True, cwd=folder)
    return program


def names(pid: int, truth: Truth, **options: bool) -> list[Name]:
    """Name the first byte of each function."""
    with Symbols(pid, **options) as symbols:
        return symbols.name(array("Q", truth))


def functions(pid: int, truth: Truth) -> list[str | None]:
    return [name.function for name in names(pid, truth)]


@pytest.mark.parametrize("kind", [["-pie"], ["-no-pie"], ["-static"], ["-O2", "-s"]])
def test_c(start: Start, tmp_path: Path, kind: list[str]) -> None:
    """By .symtab; in a stripped program only imported functions have names."""
    process, truth = start(build(tmp_path, *kind))
    found = names(process.pid, truth)
    if "-s" in kind:
        assert [name.function for name in found] == [None, None, None, "puts"]
        base = min(truth) - found[0].offset
        assert [name.offset + base for name in found[:3]] == [*truth][:3]
    else:
        assert [name.function for name in found][:3] == [*truth.values()][:3]
        assert found[3].function == "puts"
    assert [name.module for name in found[:3]] == [str(tmp_path / "named")] * 3


def test_offset_in_a_function(start: Start, tmp_path: Path) -> None:
    """Each byte of a function bears its name, and the byte before it does not."""
    process, truth = start(build(tmp_path))
    first = next(at for at, name in truth.items() if name == "exported")
    with Symbols(process.pid) as symbols:
        inside = symbols.name(array("Q", [first + 5, first, first + 5]))
        assert [(n.function, n.offset) for n in inside] == [
            ("exported", 5),
            ("exported", 0),
            ("exported", 5),
        ]
        assert symbols.name(array("Q", [first - 1]))[0].function != "exported"
        assert symbols.name(array("Q", [8])) == [Name(None, None, 8)]


def split(program: Path, debug: Path) -> None:
    """Move the debug information of a program to a file of its own."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    subprocess.run(["strip", program], check=True)


def test_debuglink(start: Start, tmp_path: Path) -> None:
    """A debug file beside the program counts if its checksum is the one in the link."""
    program = build(tmp_path, "-g")
    debug = tmp_path / ".debug/named.debug"
    split(program, debug)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={debug}", program], check=True)
    process, truth = start(program)
    assert functions(process.pid, truth)[:3] == [*truth.values()][:3]
    with debug.open("ab") as file:
        file.write(b"another")
    again = tmp_path / "other"
    shutil.copy(program, again)
    process, truth = start(again)
    assert functions(process.pid, truth)[:3] == [None] * 3


@pytest.mark.needs("root")
def test_build_id(start: Start, tmp_path: Path) -> None:
    """The debug directory of the machine is searched by build id."""
    program = build(tmp_path, "-g", "-Wl,--build-id=0x1234567890abcdef1234567890abcdef")
    debug = Path("/usr/lib/debug/.build-id/12/34567890abcdef1234567890abcdef.debug")
    split(program, debug)
    try:
        process, truth = start(program)
        assert functions(process.pid, truth)[:3] == [*truth.values()][:3]
    finally:
        debug.unlink()


def test_debugdata(start: Start, tmp_path: Path) -> None:
    """A small symbol table, compressed with xz, inside the stripped program."""
    program = build(tmp_path)
    small = tmp_path / "small"
    subprocess.run(["objcopy", "--only-keep-debug", program, small], check=True)
    subprocess.run(["xz", small], check=True)
    subprocess.run(["strip", program], check=True)
    add = f"--add-section=.gnu_debugdata={small}.xz"
    subprocess.run(["objcopy", add, program], check=True)
    process, truth = start(program)
    assert functions(process.pid, truth)[:3] == [*truth.values()][:3]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("named.cpp", marks=pytest.mark.needs("c++", "c++filt")),
        pytest.param("named.rs", marks=pytest.mark.needs("rustc", "c++filt")),
        pytest.param("named.go", marks=pytest.mark.needs("go")),
    ],
)
def test_languages(start: Start, tmp_path: Path, name: str) -> None:
    """Names are those of the source, without the hash that Rust adds."""
    process, truth = start(build(tmp_path, name=name))
    assert functions(process.pid, truth) == [*truth.values()]


@pytest.mark.needs("go")
@pytest.mark.parametrize(
    "words",
    [
        ["-ldflags=-s -w"],
        ["-ldflags=-s -w", "-buildmode=pie"],
        ["-ldflags=-s -w -linkmode=external"],
        ["-ldflags=-s -w -linkmode=external", "-buildmode=pie"],
    ],
    ids=["plain", "pie", "external", "external-pie"],
)
def test_a_stripped_go_program(start: Start, tmp_path: Path, words: list[str]) -> None:
    """Each byte of each function has the name that it has with a symbol table."""
    program = build(tmp_path, name="named.go")
    named = tmp_path / "with-symbols"
    whole = [word.replace("-s -w", "-w") for word in words]
    source = str(HERE / "targets/named.go")
    for place, flags in ((program, words), (named, whole)):
        line = ["go", "build", "-o", str(place), *flags, source]
        subprocess.run(line, check=True, cwd=tmp_path)
    process, truth = start(program)
    assert functions(process.pid, truth) == [*truth.values()]
    with program.open("rb") as file, named.open("rb") as other:
        elf, same = open_elf(file.fileno()), open_elf(other.fileno())
        assert elf.symbols(".symtab") == []
        found, expected = Functions(go_table.functions_of(elf)), same.symbols(".symtab")
        table = Functions(expected)
    assert len(found) > 1000
    of_go = [one for one in expected if found.at(one[0]) is not None]
    assert len(of_go) > len(found) - 5
    for begin, size, *_ in of_go:
        for address in {begin, begin + size // 2, begin + max(size - 1, 0)}:
            mine, theirs = found.at(address), table.at(address)
            assert theirs is not None
            if theirs[0].startswith(b"type..") or mine is None:
                continue
            assert mine[1] == theirs[1], (hex(address), mine, theirs)


@pytest.mark.needs("go")
def test_a_damaged_table_of_go(tmp_path: Path) -> None:
    """It may have fewer names, or wrong ones, and raises nothing."""
    whole = build(tmp_path, name="named.go").read_bytes()
    section = Elf(io.BytesIO(whole)).sections[".gopclntab"]
    chance = random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            at = section.offset + chance.randrange(8, 72)
            damaged[at] = chance.randrange(256)
        at = section.offset + chance.randrange(section.size)
        damaged[at : at + 64] = chance.randbytes(64)
        elf = Elf(io.BytesIO(damaged))
        found = Functions(go_table.functions_of(elf))
        for address in (0, 1 << 63, elf.address(elf.sections[".text"].offset) + 99):
            found.at(address)


def test_names_outlive_the_process(start: Start, tmp_path: Path) -> None:
    """Files are opened when they are first seen: after that their end hides nothing."""
    process, truth = start(build(tmp_path))
    with Symbols(process.pid) as symbols:
        (tmp_path / "named").unlink()
        process.kill()
        process.wait()
        found = symbols.name(array("Q", truth))
    assert [name.function for name in found][:3] == [*truth.values()][:3]


@pytest.mark.needs("root")
def test_deleted_file(start: Start, tmp_path: Path) -> None:
    """The file of a mapping is had by map_files although its name is gone."""
    process, truth = start(build(tmp_path))
    (tmp_path / "named").unlink()
    assert functions(process.pid, truth)[:3] == [*truth.values()][:3]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can read."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.needs("root", "stranger")
def test_another_file_of_that_name_is_not_read(start: Start, public: Path) -> None:
    """Without map_files the file is compared: an impostor gives no names."""
    program = build(public)
    process, truth = start(program, user=STRANGER, group=STRANGER, extra_groups=[])
    shutil.copy(program, public / "named (deleted)")
    code = (
        "import sys; from array import array\n"
        "from pagescan.attribution.symbols import Symbols\n"
        "s = Symbols(int(sys.argv[1]))\n"
        "print(s.name(array('Q', [int(sys.argv[2])]))[0].function)\n"
    )
    assert as_stranger(code, process.pid, min(truth)) == "exported\n"
    program.unlink()  # maps now shows the name of the other file
    assert as_stranger(code, process.pid, min(truth)) == "None\n"


def as_stranger(code: str, *words: int) -> str:
    """Run Python code as another user; return what it printed."""
    done = run_as_stranger("-c", code, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("root")
def test_kernel_and_vdso(start: Start, tmp_path: Path) -> None:
    with open("/proc/kallsyms") as file:
        line = next(line for line in file if line.endswith(" do_sys_openat2\n"))
    process, _ = start(build(tmp_path))
    with open(f"/proc/{process.pid}/maps") as maps:
        vdso = next(line for line in maps if "[vdso]" in line)
    base, end = (int(number, 16) for number in vdso.split()[0].split("-"))
    with Symbols(process.pid) as symbols:
        (name,) = symbols.name(array("Q", [int(line.split()[0], 16) + 3]))
        assert name == Name("do_sys_openat2", "[kernel]", 3)
        found = symbols.name(array("Q", range(base, end, 16)))
    assert {name.module for name in found} == {"[vdso]"}
    assert "clock_gettime" in {name.function for name in found}


@pytest.mark.needs("node")
def test_node(start: Start, tmp_path: Path) -> None:
    """V8 writes its map; a line of it, read by hand, is the witness."""
    script = tmp_path / "work.js"
    script.write_text(
        "function fill(a) { for (let i = 0; i < a.length; i++) a[i] = i; return a }\n"
        "const a = new Array(1000)\n"
        "for (let i = 0; i < 20000; i++) fill(a)\n"
        "console.log('')\nsetInterval(() => fill(a), 1)\n"
    )
    process, _ = start("node", "--perf-basic-prof", script, cwd=tmp_path)
    table = Path(f"/tmp/perf-{process.pid}.map")
    try:
        rows = [line.split(" ", 2) for line in table.read_text().splitlines()]
        at = [int(row[0], 16) for row in rows if "fill" in row[2]][-1]
        found = names(process.pid, {at: ""})[0]
        assert (found.function, found.module) == ("fill", JIT)
        assert (found.file, found.line) == (str(script), 1)
    finally:
        table.unlink()


@pytest.mark.needs("java", "jcmd")
def test_java(start: Start, tmp_path: Path) -> None:
    """HotSpot is asked only where the caller wants it, and then names its methods."""
    source = str(HERE / "targets/Steady.java")
    subprocess.run(["javac", "-d", str(tmp_path), source], check=True)
    words = ["java", "-Xmx256m", "-cp", str(tmp_path), "Steady"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    table = Path(f"/tmp/perf-{process.pid}.map")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        Symbols(process.pid).close()
        assert not table.exists()
        ask = ["jcmd", str(process.pid), "Compiler.perfmap"]
        subprocess.run(ask, check=True, stdout=subprocess.DEVNULL)
        witness.wait_for(lambda: _asked(process.pid))
        rows = [line.split(" ", 2) for line in table.read_text().splitlines()]
        at = {int(row[0], 16): row[2] for row in rows[:50]}
        found = names(process.pid, at)
        assert {name.module for name in found} == {JIT}
        assert [name.function for name in found] == [*at.values()]
        table.unlink()
        with Symbols(process.pid, ask_runtime=True) as symbols:
            assert not table.exists()  # nothing was there, and nothing stays
            ours = symbols.name(array("Q", at))
            assert {name.module for name in ours} == {JIT}
            table.write_text("")
            assert symbols.ask_runtime()
            assert table.stat().st_size  # it was there before: it stays
    finally:
        process.kill()
        process.communicate()
        table.unlink(missing_ok=True)


def test_only_a_map_that_the_runtime_wrote_goes(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was there stays, and so do another user's file, a link, a folder."""
    process, _ = start(build(tmp_path))
    table, kept = Path(f"/tmp/perf-{process.pid}.map"), tmp_path / "kept"
    table.write_text("1000 10 before\n")
    makes: dict[str, Callable[[], object]] = {
        "file": lambda: table.write_text("1000 10 ours\n"),
        "link": lambda: table.symlink_to(kept),
        "folder": table.mkdir,
    }
    kept.write_text("1000 10 kept\n")
    made = "file"

    def ask_java(_: int) -> str:
        makes[made]()
        return ""

    monkeypatch.setattr(jit_maps, "ask_java", ask_java)
    try:
        with Symbols(process.pid, ask_runtime=True):
            assert table.exists()  # it was there before
        table.unlink()
        with Symbols(process.pid, ask_runtime=True):
            assert not table.exists()
        for made in ("link", "folder"):
            with Symbols(process.pid, ask_runtime=True):
                assert os.path.lexists(table)
            assert kept.exists()
            table.rmdir() if made == "folder" else table.unlink()
        if os.geteuid() == 0:

            def of_stranger() -> None:
                table.write_text("1000 10 ours\n")
                os.chown(table, STRANGER, -1)

            makes["stranger"] = of_stranger
            made = "stranger"
            with Symbols(process.pid, ask_runtime=True):
                assert table.exists()
    finally:
        if os.path.lexists(table):
            table.unlink()


def _asked(pid: int) -> bool:
    with Symbols(pid, ask_runtime=True) as symbols:
        return not symbols.notes


def test_process_without_a_handler_is_not_asked(start: Start, tmp_path: Path) -> None:
    """No SIGQUIT comes, which would end a process that does not catch it."""
    process, _ = start(build(tmp_path))
    with Symbols(process.pid, ask_runtime=True) as symbols:
        assert symbols.notes == [
            "methods of Java stay without a name:"
            f" {process.pid} is not a Java virtual machine"
        ]
    assert process.poll() is None


COMPILED = """\
import ctypes, mmap, sys
code = mmap.mmap(-1, 4096, flags=int(sys.argv[1]), prot=7)
print(hex(ctypes.addressof(ctypes.c_char.from_buffer(code))), "x\\n", flush=True)
sys.stdin.read()
"""
PRIVATE, SHARED = str(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), str(mmap.MAP_SHARED)


@pytest.mark.parametrize("flags", [PRIVATE, SHARED])
def test_map_of_another_user_is_not_believed(
    start: Start, tmp_path: Path, flags: str
) -> None:
    """A perf map counts if it is the target's own or root's, and is no link."""
    process, truth = start(sys.executable, "-c", COMPILED, flags)
    (at,) = truth
    table = Path(f"/tmp/perf-{process.pid}.map")
    table.write_text(f"{at:x} 10 py::walk:/srv/app.py\n{at:x} 20 grown \x1b[31m\nbad\n")
    try:
        assert names(process.pid, truth)[0] == Name("grown \\x1b[31m", JIT, 0)
        if os.geteuid() == 0:
            os.chown(table, STRANGER, -1)
            assert names(process.pid, truth)[0].function is None
        table.rename(tmp_path / "map")
        table.symlink_to(tmp_path / "map")
        assert names(process.pid, truth)[0].function is None
    finally:
        table.unlink()


@pytest.mark.parametrize("flags", [PRIVATE, SHARED])
def test_grown_map(start: Start, flags: str) -> None:
    """Code that is compiled later is named at the next refresh."""
    process, truth = start(sys.executable, "-c", COMPILED, flags)
    table = Path(f"/tmp/perf-{process.pid}.map")
    try:
        with Symbols(process.pid) as symbols:
            at = array("Q", truth)
            assert symbols.name(at)[0].function is None
            with table.open("a") as file:
                file.write(f"{at[0]:x} 10 py::walk:/srv/app.py\n")
            symbols.refresh()
            assert symbols.name(at)[0] == Name("walk", JIT, 0, "/srv/app.py")
    finally:
        table.unlink()


def test_damaged_files(start: Start, tmp_path: Path) -> None:
    """Headers and tables of any content give no name, or one, but never an error."""
    program = build(tmp_path)
    whole = program.read_bytes()
    dice = random.Random(5)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 40)):
            where = dice.choice((dice.randrange(64), dice.randrange(len(data))))
            data[where] = dice.randrange(256)
        damaged = tmp_path / "damaged"
        damaged.write_bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        fd = os.open(damaged, os.O_RDONLY)
        try:
            elf = open_elf(fd)
            Functions(elf.symbols(".symtab")).at(elf.address(0x1150))
        except BadElfError:
            pass
        finally:
            os.close(fd)


def test_gone(start: Start, tmp_path: Path) -> None:
    process, _ = start(build(tmp_path))
    process.kill()
    process.wait()
    with pytest.raises(NoSuchTargetError):
        Symbols(process.pid)


def test_no_descriptor_stays(start: Start, tmp_path: Path) -> None:
    process, truth = start(build(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    names(process.pid, truth)
    assert len(os.listdir("/proc/self/fd")) == before
    os.kill(process.pid, signal.SIGKILL)


@pytest.mark.needs("symbolic")
@pytest.mark.parametrize("kind", ["-pie", "-no-pie"])
def test_lines(start: Start, tmp_path: Path, kind: str) -> None:
    """Source line and inlined function, from DWARF."""
    process, truth = start(build(tmp_path, "-g", "-O1", kind))
    source = str(HERE / "targets/named.c")
    text = Path(source).read_text().splitlines()
    outer = next(at for at, name in truth.items() if name == "outer")
    with Symbols(process.pid, lines=True) as symbols:
        found = symbols.name(array("Q", range(outer, outer + 4)))
    assert {name.function for name in found} == {"outer"}
    assert {name.file for name in found} == {source}
    inside = [name for name in found if name.inlined]
    assert inside[0].inlined == ("inlined",)
    assert text[(inside[0].line or 0) - 1].strip() == "room[at]++;"
