"""Rules for frames: readelf is the witness."""

import io
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from pagescan.attribution.elf import Elf
from pagescan.attribution.unwind_tables import UnwindTable

NAMES = dict(enumerate(("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp")))
SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
Row = tuple[int, int, str, dict[str, str]]
"""First and last address, where the frame ends, what is saved where."""


def rows_of(file: str) -> Iterator[Row]:
    """Yield what readelf prints about the frames of a file."""
    words = ["readelf", "--debug-dump=frames-interp", file]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    columns: list[str] = []
    kept: list[tuple[int, str, dict[str, str]]] = []
    end = 0
    for line in [*done.stdout.splitlines(), " CIE "]:
        if " FDE " in line or " CIE " in line:
            ends = [*(start - 1 for start, *_ in kept[1:]), end - 1]
            for last, (start, place, saved) in zip(ends, kept, strict=False):
                yield start, last, place, saved
            kept = []
            range_of = re.search(r"pc=[0-9a-f]+\.\.([0-9a-f]+)", line)
            end = int(range_of[1], 16) if range_of else 0
        elif line.split()[:1] == ["LOC"]:
            columns = line.split()[2:]
        elif end and (row := re.match(r"([0-9a-f]{16}) (\S+)\s+(.*)", line)):
            saved = dict(zip(columns, row[3].split(), strict=False))
            kept.append((int(row[1], 16), row[2], saved))


def offset_of(text: str) -> int:
    return int(text[1:]) if text.startswith("c") else 0


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")
@pytest.mark.parametrize("name", ["python", "libc"])
def test_every_rule_is_that_of_readelf(name: str) -> None:
    with open("/proc/self/maps") as maps:
        files = [row.split()[5] for row in maps if len(row.split()) == 6]
    file = next(file for file in files if name in file and file.startswith("/"))
    with open(file, "rb") as program:
        table = UnwindTable(Elf(io.BytesIO(program.read())))
    wrong, right, none = [], 0, 0
    for first, last, end, saved in rows_of(file):
        for address in (first, last):
            rule = table.at(address)
            if rule is None:
                none += 1
                continue
            base = NAMES.get(rule.base, f"r{rule.base}")
            expected = tuple(offset_of(saved.get(name, "u")) for name in SAVED)
            if (f"{base}+{rule.offset}", rule.saved) == (end, expected):
                right += 1
            else:
                wrong.append((hex(address), end, saved, rule))
    assert wrong == []
    assert right > 0
    assert none <= max(40, right // 100)


def test_files_without_rules() -> None:
    with open("/proc/self/exe", "rb") as file:
        whole = file.read()
    elf = Elf(io.BytesIO(whole))
    for name in (".eh_frame", ".eh_frame_hdr"):
        kept = elf.sections.pop(name)
        assert UnwindTable(elf).at(elf.segments[0][2]) is None
        elf.sections[name] = kept


def test_damaged_rules_are_no_rules() -> None:
    """Random bytes in the section give no rule or some rule, and never an error."""
    with open("/proc/self/exe", "rb") as file:
        whole = bytearray(file.read())
    elf = Elf(io.BytesIO(bytes(whole)))
    section = elf.sections[".eh_frame"]
    for at in range(section.offset, section.offset + section.size, 7):
        whole[at] = at * 31 & 255
    table = UnwindTable(Elf(io.BytesIO(bytes(whole))))
    start = elf.address(elf.sections[".text"].offset)
    for address in range(start, start + elf.sections[".text"].size, 1009):
        table.at(address)
