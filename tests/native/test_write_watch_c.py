"""Tests pagescan_writewatch.h in a C program without Python: targets/watcher.c."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pagescan import writewatch
from tests.conftest import SANITIZED

SOURCE = Path(__file__).parents[1] / "targets/watcher.c"

pytestmark = [
    pytest.mark.needs("tracking"),
    pytest.mark.skipif(SANITIZED, reason="separate programs have no sanitizer"),
]


def compiled(program: Path, *words: str) -> Path:
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_GNU_SOURCE")
    include = f"-I{writewatch.get_include()}"
    subprocess.run(
        ["cc", "-O1", *warnings, include, *words, "-o", str(program)], check=True
    )
    return program


def test_a_c_program_watches_its_writes(tmp_path: Path) -> None:
    """Order, limit, parts, refusals, adopted memory, and a forked child are right."""
    # -Wpedantic rejects a cast from dlsym() to a function without this.
    program = compiled(tmp_path / "watcher", "-Wno-pedantic", str(SOURCE), "-ldl")
    environment = {k: v for k, v in os.environ.items() if k != "LD_BIND_NOW"}
    done = subprocess.run(
        [program, writewatch.library()],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout == "ok\n", (done.returncode, done.stdout)


@pytest.mark.parametrize("words", [("-std=c99", "-x", "c"), ("-x", "c++")])
def test_the_header_stands_alone(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The header compiles alone, in C99 and C++, with all warnings and C names."""
    text = tmp_path / "alone"
    text.write_text(
        "#include <pagescan_writewatch.h>\n"
        "int reset(struct pagescan_watch *w);\n"
        "int reset(struct pagescan_watch *w)"
        " { return pagescan_watch_reset(w, w->address, w->size); }\n"
    )
    program = compiled(tmp_path / "alone.o", "-c", *words, str(text))
    names = subprocess.run(["nm", "-u", program], capture_output=True, check=True)
    assert b" U pagescan_watch_reset\n" in names.stdout


def test_it_exports_nothing_else() -> None:
    """The library exports only the functions of the header."""
    done = subprocess.run(
        ["nm", "-D", "--defined-only", writewatch.library()],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    watch = {"create", "adopt", "get", "reset", "destroy"}
    assert names == {"PyInit__shim", *(f"pagescan_watch_{name}" for name in watch)}


def test_the_example_of_the_guide_runs(tmp_path: Path) -> None:
    """The C example of the guide runs exactly as printed."""
    guide = (SOURCE.parents[2] / "docs/guide.md").read_text()
    (text,) = re.findall(r"^```c\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    source = tmp_path / "watcher.c"
    source.write_text(text)
    words = ("-Wno-pedantic", "-std=gnu11", str(source), "-ldl")
    program = compiled(tmp_path / "watcher", *words)
    done = subprocess.run(
        [program, writewatch.library()], capture_output=True, check=True
    )
    assert done.stdout.startswith(b"1 page of 4096 bytes, at 0x")
