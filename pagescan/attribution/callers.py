"""Names the callers in chains of frame pointers, as far as they can be trusted.

Code without frame pointers uses that register for other things: the chain is then
plausible, and wrong. So a caller is kept only where a call instruction ends right
before its return address; the chain ends at the first caller that fails this check.
Code of JITs is checked by its map, because its bytes may have been replaced.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import os
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pagescan.attribution.symbols import JIT

if TYPE_CHECKING:
    from pagescan.attribution.symbols import Name, Symbols

_LONGEST = 7  # bytes of an indirect call; source: Intel SDM, CALL
_DIRECT = 0xE8
_KERNEL = 1 << 63
_GOEXIT = "runtime.goexit"
"""Go pushes its address by hand: no call stands before it."""


def named_chains(
    pid: int, symbols: Symbols, chains: dict[bytes, int]
) -> dict[int, tuple[str, ...]]:
    """Return the callers of each chain, the nearest first, by the number of the chain.

    The chains are empty if the process's memory cannot be read, as after its end.
    """
    columns = {number: _frames(chain) for chain, number in chains.items()}
    returns = {frame for frames in columns.values() for frame in frames[1:]}
    calls = _calls(pid, returns)
    targets = {target for target in calls.values() if target}
    # A return address may be the first one of the next function: its call is before it.
    before = {address - 1 for address in returns if address}
    codes = {frames[0] for frames in columns.values()}
    column = array("Q", before | targets | codes)
    names = dict(zip(column, symbols.name(column), strict=True))
    return {
        number: tuple(trusted(frames, names, calls))
        for number, frames in columns.items()
    }


def _frames(chain: bytes) -> list[int]:
    frames = array("Q")
    frames.frombytes(chain)
    return [frame for frame in frames if frame]


def trusted(
    frames: list[int], names: dict[int, Name], calls: dict[int, int]
) -> Iterable[str]:
    """Yield the callers of a chain up to the first one that cannot be trusted.

    A function without a frame of its own, such as memset, hides its caller. Then the
    call before the next return address has another target: that one is a caller, too.
    An indirect call tells no target, so the first hop needs a direct one.
    """
    callee, is_sure = names[frames[0]], False
    if frames[0] >= _KERNEL and len(frames) > 1:
        frames = frames[1:]  # where the program called the kernel: exact
        callee = names[frames[0] - 1]
        if callee.function is None:
            return
        yield callee.function
    for frame in frames[1:]:
        caller = names[frame - 1]
        if caller.function is None:
            return
        if caller.module != JIT and caller.function != _GOEXIT:
            if frame not in calls or not (calls[frame] or is_sure):
                return
            called = names[calls[frame]].function if calls[frame] else None
            if called not in (None, callee.function):
                yield str(called)
        yield caller.function
        callee, is_sure = caller, True


def _calls(pid: int, addresses: Iterable[int]) -> dict[int, int]:
    """Return the addresses that follow a call, with the target of the call, or 0."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError):
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for address in addresses:
                with contextlib.suppress(OSError, OverflowError):
                    code = os.pread(memory, _LONGEST, address - _LONGEST)
                    if is_call(code):
                        found[address] = _target(code, address)
        finally:
            os.close(memory)
    return found


def _target(code: bytes, address: int) -> int:
    """Return the target of a direct call; 0: the call is indirect."""
    if code[-5] != _DIRECT:
        return 0
    return address + int.from_bytes(code[-4:], "little", signed=True)


def is_call(code: bytes) -> bool:
    """Whether bytes end with a call: e8 and four bytes, or ff /2 of 2 to 7 bytes."""
    if len(code) >= 5 and code[-5] == _DIRECT:
        return True
    return any(
        code[-length] == 0xFF
        and code[1 - length] >> 3 & 7 == 2
        and _length(code[1 - length :]) == length
        for length in range(2, len(code) + 1)
    )


def _length(operand: bytes) -> int:
    """Return the length of an instruction: one byte of opcode, a ModRM operand."""
    mode, low = operand[0] >> 6, operand[0] & 7
    if mode == 3:
        return 2
    indexed = low == 4
    size = 2 + indexed + {0: 0, 1: 1, 2: 4}[mode]
    if mode == 0:
        base = operand[1] & 7 if indexed and len(operand) > 1 else low
        if base == 5:
            size += 4
    return size
