"""Labels the memory of a target: what each mapping is for.

A label comes from what the kernel shows (names, addresses, sizes, permissions, and the
stack pointers of threads), never from the memory of the target. Where no rule fits,
there is no label: `maps -v` prints the rule beside each label. Only `--ask-runtime`
asks the target itself.
"""

import contextlib
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.memory import Mapping
from pagescan.model.results import MappingCounts
from pagescan.target.label_rules import (
    RULES,
    TOLD_RULE,
    Label,
    Program,
    Told,
    is_data,
    labels_by,
    text_of,
)
from pagescan.target.maps import read
from pagescan.target.process import Target
from pagescan.target.thread_stacks import ThreadStack, thread_stacks

_FRESH = 3.0  # seconds
_SHARE = 0.02  # of the time, at most: a target may have a hundred thousand mappings

_STACK_RULE = "the stack pointer of that thread"
"""A stack is remembered by its thread: a later one may get the same memory."""


class _Known(NamedTuple):
    """A mapping, and the label that it has got."""

    mapping: Mapping
    label: Label


class Labels:
    """The labels of one target's memory; stacks that were found are remembered.

    Attributes:
        target: The process.
        told: What the target itself has said; it comes before all rules.
    """

    def __init__(self, target: Target) -> None:
        """Label the memory of a target."""
        self.target = target
        self.told: list[Told] = []
        self._stacks: dict[int, ThreadStack] = {}
        self._known: dict[int, _Known] = {}  # by the start of the mapping
        self._mappings: Sequence[Mapping] = []  # as they were when they were labelled
        self._labels: list[Label | None] = []
        self._old = 0.0  # when they are out of date
        self._due = 0.0  # when they may be made again

    def of(self, mappings: Sequence[Mapping]) -> list[Label | None]:
        """Return the label of each mapping; None: no rule knows it.

        Args:
            mappings: All mappings of the target, ascending.
        """
        self._find_stacks(mappings)
        program = Program(self.target.facts.exe, mappings)
        rules = [rule for rule in RULES if rule.has(program)]
        labels = [
            self._said(program, at)
            or self._stack(program, at)
            or self._earlier(mapping)
            or next(labels_by(rules, program, at), None)
            for at, mapping in enumerate(mappings)
        ]
        self._known = {
            mapping.start: _Known(mapping, label)
            for mapping, label in zip(mappings, labels, strict=True)
            if label and label.rule != _STACK_RULE
        }
        return labels

    def _earlier(self, mapping: Mapping) -> Label | None:
        """Return the label that a mapping had before: it stays while that is mapped.

        A rule may not know it again: it grows, or its neighbours change.
        """
        known = self._known.get(mapping.start)
        if known is None:
            return None
        before = known.mapping
        same = (before.name, before.perms, before.inode)
        return (
            known.label
            if same == (mapping.name, mapping.perms, mapping.inode)
            else None
        )

    def cover(
        self, mappings: Sequence[Mapping], rows: Sequence[Mapping] | None = None
    ) -> dict[int, str]:
        """Return the texts of labels by the starts of mappings, where a rule knows one.

        The target is asked again after a while, or when a mapping is new, if that takes
        little of the time; one that has ended keeps the labels that it had.

        Args:
            mappings: Some mappings of the target, or parts of some.
            rows: All of its mappings, if they have just been read; None: read them.
        """
        begun = time.monotonic()
        indices = self._indices(mappings)
        if begun >= self._due and (begun >= self._old or None in indices):
            with contextlib.suppress(PagescanError):
                rows = read(self.target) if rows is None else rows
                self._labels, self._mappings = self.of(rows), rows
                indices = self._indices(mappings)
            self._old = begun + _FRESH
            self._due = begun + (time.monotonic() - begun) / _SHARE
        labels = [None if at is None else self._labels[at] for at in indices]
        pairs = zip(mappings, labels, strict=True)
        return {mapping.start: label.text for mapping, label in pairs if label}

    def label(self, batch: Batch) -> None:
        """Label the mappings of a batch."""
        batch.labels = self.cover(batch.mappings)

    def label_rows(
        self, rows: Sequence[MappingCounts], mappings: Sequence[Mapping] | None = None
    ) -> list[MappingCounts]:
        """Return rows with the labels of their mappings; `mappings`: as in `cover`."""
        texts = self.cover([row.mapping for row in rows], mappings)
        labels = (texts.get(row.start) for row in rows)
        return [
            row if row.label == label else replace(row, label=label)
            for row, label in zip(rows, labels, strict=True)
        ]

    def by_rule(self) -> dict[str, list[str]]:
        """Return the rules that have applied, each with its labels, sorted."""
        texts: dict[str, set[str]] = {}
        for label in filter(None, self._labels):
            texts.setdefault(label.rule, set()).add(label.text)
        return {rule: sorted(found) for rule, found in texts.items()}

    def _indices(self, mappings: Sequence[Mapping]) -> list[int | None]:
        """Return which labelled mapping holds each; None: none does."""
        starts = [mapping.start for mapping in self._mappings]
        indices: list[int | None] = []
        for mapping in mappings:
            at = bisect_right(starts, mapping.start) - 1
            indices.append(at if at >= 0 and self._holds(at, mapping) else None)
        return indices

    def _holds(self, at: int, mapping: Mapping) -> bool:
        """Whether a mapping is a labelled one, or a part of it, and not a later one."""
        known = self._mappings[at]
        same = (known.name, known.perms) == (mapping.name, mapping.perms)
        return same and mapping.start < known.end

    def _said(self, program: Program, at: int) -> Label | None:
        text = text_of(self.told, program.mappings[at]) if self.told else None
        return Label(text, TOLD_RULE) if text else None

    def _find_stacks(self, mappings: Sequence[Mapping]) -> None:
        stacks = thread_stacks(self.target.pid)
        living = {stack.tid for stack in stacks}
        starts = [mapping.start for mapping in mappings]
        self._stacks = {
            start: stack for start, stack in self._stacks.items() if stack.tid in living
        }
        for stack in stacks:
            at = bisect_right(starts, stack.pointer) - 1
            if at >= 0 and stack.pointer < mappings[at].end and not mappings[at].inode:
                self._stacks[mappings[at].start] = stack

    def _stack(self, program: Program, at: int) -> Label | None:
        """Label a thread's stack: the kernel's own, or one with a guard before it."""
        mapping = program.mappings[at]
        stack = self._stacks.get(mapping.start)
        if stack is None:
            return None
        if mapping.name != "[stack]" and not (is_data(mapping) and program.guarded(at)):
            return None  # the stack of a goroutine, or of another fiber
        whose = f"{stack.name} {stack.tid}" if stack.name else stack.tid
        return Label(f"[stack of {whose}]", _STACK_RULE)
