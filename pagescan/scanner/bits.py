"""Reads the kernel's bits of a page by a rule, as the shim does for each region."""

from pagescan.model.memory import Category
from pagescan.native import Rule
from pagescan.scanner.rules import POPULATED


def read_bits(rule: Rule, bits: int) -> int:
    """Return the bits as they are reported."""
    if rule.empty_without and not bits & rule.empty_without:
        bits |= Category.WRITTEN
    written = (
        bits & rule.written_all == rule.written_all
        and (not rule.written_any or bits & rule.written_any)
        and not bits & rule.written_none
    )
    if not written:
        bits &= ~Category.WRITTEN
    if bits & rule.marker_bits:
        bits &= ~Category.SWAPPED
    return bits & ~rule.ignored_bits


def is_wanted(rule: Rule, bits: int) -> bool:
    """Whether pages whose bits were read so are what the rule wants."""
    masks = rule.result_masks
    bits ^= masks.inverted
    return bits & masks.mask == masks.mask and not (
        masks.anyof and not bits & masks.anyof
    )


def protectable(bits: int) -> bool:
    """Whether a page may be write-protected by the scan: populated and registered."""
    return bool(
        bits & Category.WPALLOWED and bits & POPULATED and not bits & Category.GUARD
    )


def is_gone(rule: Rule, bits: int) -> bool:
    """Whether a page was written, in shared memory, and is in no page table now."""
    empty = bool(rule.empty_without) and not bits & rule.empty_without
    return empty and bool(read_bits(rule, bits) & Category.WRITTEN)
