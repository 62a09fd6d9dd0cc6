"""Builds `pagescan.native._shim` from shim_*.c and two headers; run by setup.py only.

Environment:
    CI: If set, compiler warnings are errors.
    PAGESCAN_CFLAGS, PAGESCAN_LDFLAGS: Additional flags, for sanitizers.
"""

import os
import shlex
import sys
import sysconfig
import zlib
from pathlib import Path

import cffi

_HERE = Path("pagescan/native")  # setuptools wants sources relative to setup.py
_HEADERS = (Path("pagescan/native/include/pagescan_writewatch.h"), _HERE / "shim.h")
_LEAST_PYTHON = 0x030B0000  # 3.11, as requires-python

if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
    sys.exit("pagescan needs a 64-bit Linux: other systems have no PAGEMAP_SCAN")


def _declarations(header: Path) -> str:
    """Return the declarations of a header for Python: the lines between two markers."""
    text = header.read_text(encoding="utf-8")
    inside = text.partition("/* cdef begin */")[2].partition("/* cdef end */")[0]
    if not inside:
        sys.exit(f"{header}: no lines between 'cdef begin' and 'cdef end'")
    return inside


# An older cffi leaves these to Python.h, which no longer has them with this ABI. They
# are read before the files' own `#define _GNU_SOURCE`.
_LEFT_OUT = ["-D_GNU_SOURCE=", "-include", "string.h", "-include", "alloca.h"]
_compile = [
    "-std=gnu11",
    "-O2",
    "-fvisibility=hidden",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wno-unused-parameter",  # in the wrappers that cffi writes
    *(_LEFT_OUT if cffi.__version_info__ < (2, 1) else []),
    *(["-Werror"] if os.environ.get("CI") else []),
    *shlex.split(os.environ.get("PAGESCAN_CFLAGS", "")),
]
_limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

ffi = cffi.FFI()
for _header in _HEADERS:
    ffi.cdef(_declarations(_header))
# door.py compares this number with the headers: a shim may be older than they are.
ffi.cdef("#define PS_HEADERS ...")
_headers = zlib.crc32(b"".join(header.read_bytes() for header in _HEADERS))
ffi.set_source(
    "pagescan.native._shim",
    '#include "shim.h"',
    sources=[str(path) for path in sorted(_HERE.glob("shim_*.c"))],
    depends=[str(path) for path in sorted([*_HERE.glob("*.h"), *_HEADERS])],
    include_dirs=[str(_HERE)],
    define_macros=[
        ("PS_HEADERS", f"{_headers}u"),
        *([("Py_LIMITED_API", hex(_LEAST_PYTHON))] if _limited else []),
    ],
    py_limited_api=_limited,
    extra_compile_args=_compile,
    # Lazy binding, because C programs without Python open it for pagescan_writewatch.h.
    extra_link_args=[
        "-pthread",
        *shlex.split(os.environ.get("PAGESCAN_LDFLAGS", "")),
        "-Wl,-z,lazy",
    ],
)
