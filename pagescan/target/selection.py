"""Selects, from a process's mappings, those that the user's RANGE words name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import PAGE_SIZE, Mapping, Range
from pagescan.model.units import escape, parse_address, parse_size

_SPAN = re.compile(r"([0-9][0-9a-zA-Z]*)([-+])([0-9][0-9a-zA-Z]*)")
_HEAP = "[heap]"
_NUMBER = re.compile(r"[0-9.]+([mu]?s)?")


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected part of the address space: everything, or what RANGE words name.

    A session stores it, and selects later mappings by the same words.

    Attributes:
        ranges: Address ranges, as the user typed them.
        names: Mapping names with * and ? as wildcards.
    """

    ranges: tuple[Range, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Selection":
        """Parse RANGE words; UsageError if one is malformed.

        A string is one word: as words, its letters would be names of mappings.
        """
        ranges: list[Range] = []
        names: list[str] = []
        for word in (words,) if isinstance(words, str) else words:
            if not isinstance(word, str):
                raise UsageError(
                    f"malformed range: {word!r} is no string",
                    hint="as in '0x7f0000000000-0x7f0000010000' or '[heap]'",
                )
            if word[:1].isdigit():
                ranges.append(_parse_range(word))
            elif word:
                names.append(word)
            else:
                raise UsageError("an empty RANGE selects nothing")
        return cls(tuple(ranges), tuple(names))

    @property
    def words(self) -> list[str]:
        """The selection as words that `parse` reads, to be stored."""
        return [*map(str, self.ranges), *self.names]

    @property
    def everything(self) -> bool:
        """Whether no RANGE was given."""
        return not (self.ranges or self.names)

    def select(self, mappings: Sequence[Mapping]) -> MappingSet:
        """Return the selected parts of the mappings, ascending and disjoint.

        A mapping selected in part is cut at (huge) page borders: the part is widened
        to whole pages, never narrowed.
        """
        if self.everything:
            return MappingSet(mappings, mappings)
        patterns = [_pattern(name) for name in self.names]
        selected: list[Mapping] = []
        for mapping in mappings:
            if any(_matches(pattern, mapping) for pattern in patterns):
                selected.append(mapping)
            elif self.ranges:
                selected += self._parts(mapping)
        return MappingSet(selected, mappings)

    def _parts(self, mapping: Mapping) -> Iterable[Mapping]:
        """Yield the parts of one mapping that the ranges cover."""
        size = mapping.page_size or PAGE_SIZE
        low = high = mapping.start
        for span in sorted(self.ranges):
            start = max(span.start - span.start % size, mapping.start)
            end = min(span.end + -span.end % size, mapping.end)
            if start > high:
                if low < high:
                    yield cut(mapping, low, high)
                low = high = start
            high = max(high, end)
        if low < high:
            yield cut(mapping, low, high)

    def check(
        self, mappings: Sequence[Mapping], *, hint: str = "pagescan maps lists"
    ) -> list[str]:
        """Return remarks for the user: one per range that was widened.

        Args:
            mappings: The mappings of the process.
            hint: What lists them.

        Raises:
            PagescanError: A range covers no mapping, or no mapping has a given name.
        """
        notes = []
        absent = [
            name
            for name in self.names
            if not any(_matches(_pattern(name), mapping) for mapping in mappings)
        ]
        if absent:
            names = " or ".join(repr(escape(name)) for name in absent)
            where = f"{hint} the names; * and ? are wildcards"
            if meant := _meant(absent[0], {mapping.label for mapping in mappings}):
                where = meant
            elif absent[0].startswith("[") and " " in absent[0]:
                where = f"{hint} the names; labels select nothing"
            if len(absent) < len(self.names) + len(self.ranges):
                where = f"nothing was done, since each name has to exist: {where}"
            raise PagescanError(f"no mapping is named {names}", hint=where)
        for span in self.ranges:
            parts = Selection((span,)).select(mappings)
            if not parts:
                raise PagescanError(
                    f"the range {span} covers no mapping",
                    hint=f"{hint} the mappings",
                )
            notes += _widened(span, parts)
        return notes


def _meant(word: str, names: set[str]) -> str | None:
    """Return the hint for a name that no mapping has: what was meant, if it is known.

    Args:
        word: The name.
        names: The names of all mappings.
    """
    from difflib import get_close_matches

    def nearest(choices: Iterable[str]) -> str | None:
        return next(iter(get_close_matches(word.strip("*"), choices, 1, 0.75)), None)

    files = sorted({name.rpartition("/")[2] for name in names if "/" in name} - {""})
    stems = [re.split("[-.]", file.removeprefix("lib"))[0] for file in files]
    meant: str | None = None
    if (bracketed := f"[{word.strip('[]')}]") in names:
        meant = bracketed
    elif word.startswith("[") and " " in word:
        return None  # a label
    elif _HEAP not in names and "[anon]" in names and nearest([_HEAP, "heap"]):
        return "the process has no [heap]: its allocator takes memory from '[anon]'"
    elif word in files:
        meant = f"*/{word}"
    elif any(word.strip("*") in file for file in files):
        meant = f"*{word.strip('*')}*"
    elif near := nearest(sorted(names)):
        meant = near
    elif near := nearest(files):
        meant = f"*/{near}"
    elif near := nearest(stems):
        meant = f"*{near}*"
    return f"did you mean '{escape(meant)}'?" if meant else None


def _widened(span: Range, parts: Sequence[Mapping]) -> list[str]:
    first, last = parts[0].page_size or PAGE_SIZE, parts[-1].page_size or PAGE_SIZE
    wide = Range(span.start - span.start % first, span.end + -span.end % last)
    if wide == span:
        return []
    return [f"the range {span} was widened to whole pages: {wide}"]


def cut(mapping: Mapping, start: int, end: int) -> Mapping:
    """Return the part [start, end) of a mapping, with its offset in the file."""
    if (start, end) == (mapping.start, mapping.end):
        return mapping
    offset = mapping.offset + start - mapping.start if mapping.inode else mapping.offset
    return mapping._replace(start=start, end=end, offset=offset)


def _parse_range(word: str) -> Range:
    match = _SPAN.fullmatch(word)
    if match is None:
        hint = "START-END, START+LEN (0x7f0000000000+64K) or a mapping's name"
        if word.isdigit():
            hint = "one TARGET at a time; the words after it are ranges: " + hint
        elif _NUMBER.fullmatch(word):
            hint = f"an interval is an option: -i {word}; a RANGE is " + hint
        raise UsageError(f"malformed range: {word!r}", hint=hint)
    try:
        start = parse_address(match[1])
        if match[2] == "+":
            end = start + parse_size(match[3])
        else:
            end = parse_address(match[3])
    except ValueError as error:
        raise UsageError(
            f"malformed range: {word!r}", hint="addresses are decimal or 0x hex"
        ) from error
    if start >= end:
        raise UsageError(f"malformed range: {word!r} is empty or backwards")
    if end > 1 << 64:
        raise UsageError(f"malformed range: {word!r} ends beyond any address")
    return Range(start, end)


def _pattern(name: str) -> re.Pattern[str]:
    """Translate a name to a pattern: only * and ? are wildcards; [heap] is literal."""
    parts = (
        ".*" if char == "*" else "." if char == "?" else re.escape(char)
        for char in name
    )
    return re.compile("".join(parts), re.DOTALL)


def _matches(pattern: re.Pattern[str], mapping: Mapping) -> bool:
    label = mapping.label
    return bool(pattern.fullmatch(label) or pattern.fullmatch(escape(label)))
