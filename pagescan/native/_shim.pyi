"""What cffi makes of the shim: without types, which pagescan.native gives it."""

from typing import Any

ffi: Any
lib: Any
