"""Keeps memory that malloc and Python's object allocator have freed: shim_arenas.c."""

import ctypes  # noqa: TID251 - cffi releases the GIL, which guards the allocator

from pagescan.native.door import ffi, lib


class KeptArenas:
    """While it is open, freed arenas of small objects stay mapped, for reuse."""

    def __init__(self) -> None:
        """Put this allocator of arenas before the present one."""
        self._arenas = ffi.new("struct ps_arenas *")
        self._before = _Calls()
        ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(self._before))
        calls = _Calls.from_buffer_copy(self._before)
        at = ffi.cast("struct ps_arena_calls *", ctypes.addressof(calls))
        lib.ps_arenas_begin(self._arenas, at)
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(calls))

    def close(self) -> None:
        """Put the earlier allocator back, and free what was kept."""
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(self._before))
        lib.ps_arenas_end(self._arenas)


class _Calls(ctypes.Structure):
    """PyObjectArenaAllocator; the shim reads and writes the same three words."""

    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("alloc", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
    )


def keep_malloc(*, keep: bool) -> None:
    """Make malloc keep freed memory, or return it to the kernel as usual."""
    lib.ps_malloc_keep(keep)
