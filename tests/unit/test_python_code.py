"""Code objects are read from memory: here from that of this process."""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from types import CodeType

import pytest

from pagescan.attribution.python_code import LAYOUTS, CodeObjects, Types

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] not in LAYOUTS, reason="it cannot be read"
)


def sample(number: int) -> list[int]:
    """Be a function with some instructions."""
    return [number * at for at in range(number)]


class Outer:
    """A class whose method has a name of its own."""

    def method(self) -> str:
        """Be a method."""
        return "name" * 2


@pytest.fixture
def codes() -> Iterator[CodeObjects]:
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    types = Types(id(CodeType), id(str), id(bytes))
    yield CodeObjects(memory, LAYOUTS[sys.version_info[:2]], types)
    os.close(memory)


def start_of(code: CodeType) -> int:
    return id(code) + LAYOUTS[sys.version_info[:2]].bytecode


@pytest.mark.parametrize("function", [sample, Outer.method, os.path.join])
def test_every_instruction_of_a_function(codes: CodeObjects, function: object) -> None:
    code: CodeType = function.__code__  # type: ignore[attr-defined]
    start, size = start_of(code), len(code.co_code)
    for at in range(start, start + size + 1, 2):
        found = codes.known_at(at) or codes.search(at)
        assert found is not None
        assert (found.start, found.end) == (start, start + size)
        name, file, line, exact = found.function
        assert (name, file, line) == (
            code.co_qualname,
            code.co_filename,
            code.co_firstlineno,
        )
        assert not exact


def test_what_is_no_instruction(codes: CodeObjects) -> None:
    start, size = start_of(sample.__code__), len(sample.__code__.co_code)
    for at in (start - 2, start + 1, start + size + 2, 0, 1 << 20, (1 << 64) - 2):
        assert codes.search(at) is None
    data = b"no code" * 100
    assert codes.search(id(data) + 64) is None


def test_an_object_that_was_damaged(codes: CodeObjects) -> None:
    """Each part that does not fit is enough to refuse it."""
    layout = LAYOUTS[sys.version_info[:2]]
    code = sample.__code__
    size = layout.bytecode + len(code.co_code)
    copy = (ctypes.c_char * size).from_buffer_copy(ctypes.string_at(id(code), size))
    at = ctypes.addressof(copy)
    assert at % 8 == 0
    instruction = at + layout.bytecode + 4
    found = codes.search(instruction)
    assert found is not None
    assert found.function.name == "sample"
    for place, value in (
        (8, id(str)),  # another type
        (16, 0),  # no instructions
        (112, id(code)),  # a file name that is no string
        (128, 8),  # a name that cannot be read
        (136, id(code)),  # a table that is no bytes
    ):
        kept = ctypes.string_at(at + place, 8)
        ctypes.memmove(at + place, struct.pack("<Q", value), 8)
        codes.forget_misses()
        codes.begin()
        assert (codes.known_at(instruction) or codes.search(instruction)) is None
        ctypes.memmove(at + place, kept, 8)
        codes.forget_misses()
        assert codes.search(instruction) is not None


def test_another_object_in_its_place(codes: CodeObjects) -> None:
    """A known object is checked again for the next samples."""
    layout = LAYOUTS[sys.version_info[:2]]
    size = layout.bytecode + 16
    copy = ctypes.create_string_buffer(
        ctypes.string_at(id(sample.__code__), size), size
    )
    instruction = ctypes.addressof(copy) + layout.bytecode
    assert codes.search(instruction) is not None
    ctypes.memmove(copy, id(Outer.method.__code__), layout.bytecode)
    assert codes.known_at(instruction) is not None  # within the same samples
    codes.begin()
    assert codes.known_at(instruction) is None
    found = codes.search(instruction)
    assert found is not None
    assert found.function.name == "Outer.method"
