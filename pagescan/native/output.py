"""The output of a program that runs beside the live view: stored, then printed."""

import contextlib
import os

from pagescan.native.door import check, ffi, lib


class KeptOutput:
    """A process that keeps the last output of a program, at most 1 MiB.

    It outlives this process, and then passes on what the program writes.

    Attributes:
        input: The descriptor into which the program writes; -1 after `started`.
    """

    def __init__(self, out: int) -> None:
        """Start the process, which prints into a descriptor later."""
        output = ffi.new("struct ps_output *")
        check(lib.ps_keep_output(out, output))
        self.input: int = output.input
        self._control: int = output.control

    def started(self) -> None:
        """Close this process's copy of the input, once the program has it."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def size(self) -> tuple[int, int]:
        """Return how many bytes will be printed, and how many earlier bytes are lost.

        No output is added to these bytes afterwards.
        """
        kept, dropped = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        with contextlib.suppress(OSError):  # it was killed, and the output is lost
            check(lib.ps_output_size(self._control, kept, dropped))
        return int(kept[0]), int(dropped[0])

    def print(self) -> None:
        """Print the stored output, after `size`; later output follows at once."""
        with contextlib.suppress(OSError):
            check(lib.ps_output_print(self._control))

    def close(self) -> None:
        """Close the descriptors: stored output is printed, unless it already was."""
        self.started()
        if self._control >= 0:
            os.close(self._control)
            self._control = -1
