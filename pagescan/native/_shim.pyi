"""The module that cffi makes of the shim, without types: pagescan.native adds them."""

from typing import Any

ffi: Any
lib: Any
