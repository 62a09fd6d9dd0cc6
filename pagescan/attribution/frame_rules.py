"""The rules for walking the stacks of one process, and where its interpreter is."""

from __future__ import annotations

import contextlib
import os
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from pagescan.attribution.code_files import CodeFiles
from pagescan.attribution.elf import BadElfError, Elf, open_elf
from pagescan.attribution.instruction_homes import BP, SP, InstructionHomes
from pagescan.attribution.unwind_tables import UnwindTable
from pagescan.model.memory import PAGE_SIZE
from pagescan.native.stacks import END, FRAME, HOMES, INTERPRETER, RULE, FrameRules
from pagescan.target.maps import Reader
from pagescan.target.process import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pagescan.attribution.unwind_tables import FrameRule
    from pagescan.model.memory import Mapping

_BASES = {3: 0, 6: 1, 7: 2, 12: 4, 13: 5, 14: 6, 15: 7}
"""The place of a register in a row of a stack, by DWARF's number."""
_WORDS = {7: SP, 6: BP}
"""The registers to which words on the stack are relative, by DWARF's number."""
_END_RULE = (END, *[0] * (RULE - 1))
_FileKey = tuple[tuple[int, int], int]


class ProcessFrames:
    """The frames of one process: rules for the code that samples have met.

    Attributes:
        rules: By the address of the code.
        mappings: The mappings of code.
    """

    def __init__(self, pid: int) -> None:
        """Open the process.

        Raises:
            PagescanError: It cannot be looked at.
        """
        self.mappings: list[Mapping] = []
        self._starts = array("Q")
        self._tables: dict[_FileKey, UnwindTable | None] = {}
        self.rules = FrameRules()
        self._eval = (0, 0)
        self._homes: InstructionHomes | None = None
        self._body: FrameRule | None = None
        with contextlib.ExitStack() as undo:
            self._target = undo.enter_context(Target.open(pid))
            self._files = undo.enter_context(CodeFiles(pid))
            self._reader = Reader(self._target)
            self.refresh()
            undo.pop_all()

    def refresh(self) -> bool:
        """Read the mappings again; return whether code came or went.

        All rules are dropped then: other code may lie at an address.
        """
        if self._target.exited():
            return False
        mappings = [m for m in self._reader.read() if "x" in m.perms]
        if mappings == self.mappings:
            return False
        self.mappings = mappings
        self._starts = array("Q", [mapping.start for mapping in mappings])
        self.rules = FrameRules()
        return True

    def mapping(self, address: int) -> Mapping | None:
        """Return the mapping of code around an address."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address < self.mappings[at].end:
            return self.mappings[at]
        return None

    def exports(
        self, mapping: Mapping, names: set[bytes]
    ) -> dict[bytes, tuple[int, int]]:
        """Return address and size in memory of what a mapped file exports."""
        with self._elf(mapping) as elf:
            if elf is None:
                return {}
            # A segment may begin within the first page that is mapped.
            last = PAGE_SIZE - 1
            base = mapping.start + last - elf.address(mapping.offset + last)
            found = elf.find(names)
        return {name: (base + at, size) for name, (at, size) in found.items()}

    @contextlib.contextmanager
    def _elf(self, mapping: Mapping) -> Iterator[Elf | None]:
        """Open the file of a mapping; None: it cannot be read."""
        fd = self._files.open_mapped(mapping)
        if fd < 0:
            yield None
            return
        try:
            elf = None
            with contextlib.suppress(BadElfError):
                elf = open_elf(fd)
            yield elf
        finally:
            os.close(fd)

    def _table(self, mapping: Mapping) -> UnwindTable | None:
        """Return the rules of a mapped file."""
        key = (mapping.device, mapping.inode)
        if key not in self._tables:
            self._tables[key] = None
            if mapping.inode:
                with self._elf(mapping) as elf:
                    self._tables[key] = UnwindTable(elf) if elf else None
        return self._tables[key]

    def set_interpreter(self, start: int, code: bytes) -> bool:
        """Tell where the function is that interprets bytecode; return if it is usable.

        Args:
            start: Its address.
            code: Its machine code.
        """
        self._eval = start, start + len(code)
        self._homes = InstructionHomes(code)
        self._body = self._rule_at(start + len(code) // 2)
        self.rules = FrameRules()
        return self._homes.register >= 0 and self._body is not None

    def add(self, addresses: Iterable[int]) -> None:
        """Find the rules of code that a walk has met."""
        for address in addresses:
            self.rules[address] = self._numbers(address)

    @property
    def in_register(self) -> bool:
        """Whether a register has the interpreter's instruction, also during calls."""
        return self._homes is not None and self._homes.preserved > 0

    def _rule_at(self, address: int) -> FrameRule | None:
        mapping = self.mapping(address)
        table = self._table(mapping) if mapping is not None else None
        if mapping is None or table is None:
            return None
        return table.at(table.address(address - mapping.start + mapping.offset))

    def _numbers(self, address: int) -> tuple[int, ...]:
        """Return the rule of an address as numbers; see ps_frame_rules."""
        rule = self._rule_at(address)
        if rule is None or rule.base not in _BASES or self._may_be_eval(rule):
            return _END_RULE
        start, end = self._eval
        frame = (_BASES[rule.base], rule.offset, *rule.saved)
        if self._homes is None or not start <= address < end:
            return (FRAME, *frame, *[0] * HOMES)
        if address < start + self._homes.first:
            return (INTERPRETER, *frame, *[0] * HOMES)
        homes = [self._homes.preserved] if self._homes.preserved else []
        if rule.base in _WORDS:
            words = self._homes.words(address + 1 - start, _WORDS[rule.base])
            homes += [word - rule.offset for word in words if word < rule.offset]
        homes = [*homes, *[0] * HOMES][:HOMES]
        return (INTERPRETER, *frame, *homes)

    def _may_be_eval(self, rule: FrameRule) -> bool:
        """Whether code may be the rare part of the interpreter's function.

        Compilers move code for rare cases elsewhere, and it has no exported name.
        """
        body = self._body
        return (
            rule.is_part
            and body is not None
            and (rule.offset, rule.saved) == (body.offset, body.saved)
        )

    def close(self) -> None:
        """Close the files; a second call has no effect."""
        self._files.close()
        self._target.close()
