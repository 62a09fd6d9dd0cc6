"""The shim itself, and the form in which Python hands columns to it."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import os
from array import array
from typing import TYPE_CHECKING, Any

from pagescan.native.loading import load

if TYPE_CHECKING:
    from pagescan.native.types import Columns

_shim = load()
ffi, lib = _shim.ffi, _shim.lib

__all__ = [
    "address_of",
    "c_columns",
    "check",
    "ffi",
    "i64",
    "lib",
    "library",
    "u32",
    "u64",
]


def check(code: int) -> int:
    """Return what a function of the shim returned; OSError if it is -errno."""
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return code


def u64(column: array[int]) -> Any:
    """Return the C pointer to the numbers of an array('Q')."""
    return ffi.from_buffer("uint64_t[]", column)


def u32(column: array[int]) -> Any:
    """Return the C pointer to the numbers of an array('I')."""
    return ffi.from_buffer("uint32_t[]", column)


def i64(column: array[int]) -> Any:
    """Return the C pointer to the numbers of an array('q')."""
    return ffi.from_buffer("int64_t[]", column)


def i32(column: array[int]) -> Any:
    """Return the C pointer to the numbers of an array('i')."""
    return ffi.from_buffer("int32_t[]", column)


def c_columns(columns: Columns, capacity: int) -> Any:
    """Return the struct ps_columns that refers to columns."""
    out = ffi.new("struct ps_columns *")
    buffers = [u64(column) for column in columns]
    out.start, out.end, out.categories = buffers
    out.capacity = capacity
    out.length = len(columns.starts)
    return out


def address_of(buffer: object) -> int:
    """Return the address of a writable buffer."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer, require_writable=True)))


def library() -> str:
    """Return the path of the shared object with the C functions."""
    return str(_shim.__file__)
