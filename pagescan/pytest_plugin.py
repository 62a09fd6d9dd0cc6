"""The pytest plugin: a marker and a fixture that fail tests which write too much.

    @pytest.mark.dirty_pages(max=500)
    def test_lookup() -> None: ...

    def test_reload(dirty_pages) -> None:
        with dirty_pages(max_bytes="64M"):
            reload()

pytest always loads this file: it imports only pytest until a test uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pagescan.tracking.own_writes import WrittenPages

_SHOWN = 10
_REQUIRED = "dirty_pages_required"

DirtyPages = Callable[..., AbstractContextManager["WrittenPages"]]
"""The type of the fixture."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that fails a test, instead of skipping it, without tracking."""
    words = "dirty_pages fails, instead of skipping, where tracking is not possible"
    parser.addini(_REQUIRED, words, type="bool", default=False)
    parser.getgroup("pagescan").addoption(
        "--dirty-pages-required", action="store_true", help=words
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "dirty_pages(max=None, max_bytes=None, ranges=None): fails if the test writes"
        " more pages, or more bytes in whole pages, of this process",
    )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a marked test that writes more than its limit; fixtures do not count."""
    marker = item.get_closest_marker("dirty_pages")
    if marker is None:
        return (yield)
    unknown = sorted(set(marker.kwargs) - {"max", "max_bytes", "ranges"})
    if marker.args or unknown:
        given = ", ".join([*map(repr, marker.args), *(f"{name}=" for name in unknown)])
        pytest.fail(
            f"dirty_pages takes max=, max_bytes= and ranges=, and not {given}",
            pytrace=False,
        )
    with _limited(item.config, "the test", **marker.kwargs):
        return (yield)


@pytest.fixture
def dirty_pages(request: pytest.FixtureRequest) -> DirtyPages:
    """Return a context manager that fails if its block writes too much.

    Its arguments are those of the marker: `max` pages, `max_bytes` (a number, or text
    like "64M"), `ranges` (RANGE words). It yields the `WrittenPages` of the block;
    without a limit it only measures.
    """

    def block(
        max: int | None = None,  # noqa: A002 - as in the marker
        max_bytes: int | str | None = None,
        ranges: Iterable[str] | None = None,
    ) -> AbstractContextManager[WrittenPages]:
        return _limited(request.config, "the block", max, max_bytes, ranges)

    return block


@contextlib.contextmanager
def _limited(
    config: pytest.Config,
    what: str,
    max: int | None = None,  # noqa: A002 - as in the marker
    max_bytes: int | str | None = None,
    ranges: Iterable[str] | None = None,
) -> Iterator[WrittenPages]:
    import pagescan
    from pagescan.model.errors import PagescanError, UsageError
    from pagescan.tracking.kept_memory import freed_memory_kept

    limit = _in_bytes(max_bytes)
    _check_pages(max)
    _check_ranges(ranges)
    with contextlib.ExitStack() as stack:
        stack.enter_context(freed_memory_kept())
        try:
            written = stack.enter_context(pagescan.written_pages(ranges))
        except UsageError as error:
            pytest.fail(f"dirty_pages: {error}", pytrace=False)
        except PagescanError as error:
            reason = f"dirty_pages cannot track here: {error}"
            if config.getini(_REQUIRED) or config.getoption("--dirty-pages-required"):
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        yield written
    if max is not None and written.pages > max:
        pytest.fail(_too_many(written, what, f"max={max}"), pytrace=False)
    if limit is not None and written.bytes > limit:
        pytest.fail(_too_many(written, what, f"max_bytes={max_bytes!r}"), pytrace=False)


def _check_pages(count: object) -> None:
    if count is not None and not _is_count(count):
        pytest.fail(
            f"dirty_pages: max: not a number of pages: {count!r}", pytrace=False
        )


def _check_ranges(ranges: object) -> None:
    if ranges is not None and not isinstance(ranges, Iterable):
        pytest.fail(f"dirty_pages: ranges: no RANGE words: {ranges!r}", pytrace=False)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _in_bytes(size: int | str | None) -> int | None:
    from pagescan.model.errors import UsageError
    from pagescan.model.units import parse_size

    if size is not None and not isinstance(size, str) and not _is_count(size):
        pytest.fail(
            f"dirty_pages: max_bytes: not a number of bytes: {size!r}", pytrace=False
        )
    try:
        return parse_size(size) if isinstance(size, str) else size
    except UsageError as error:
        pytest.fail(f"dirty_pages: max_bytes: {error}", pytrace=False)


def _too_many(written: WrittenPages, what: str, limit: str) -> str:
    """Return the message for a limit exceeded: how much was written, and where."""
    from pagescan.model.units import escape, format_size, plural

    lines = [
        f"{what} wrote {plural(written.pages, 'page')} ({format_size(written.bytes)}),"
        f" more than {limit} allows",
        "  pages  mapping",
    ]
    rows = sorted(written.by_mapping(), key=lambda row: -row.pages)
    for row in rows[:_SHOWN]:
        new = "  new" if row.new else ""
        mapping = row.mapping
        lines.append(
            f"{row.pages:7}  {mapping.start:#x}-{mapping.end:#x}"
            f"  {escape(mapping.label)}{new}"
        )
    lines += _more(len(rows), "mappings")
    regions = sorted(written.regions(), key=lambda region: -region.pages)
    lines.append("  pages  region, the largest first")
    lines += [
        f"{region.pages:7}  {region.start:#x}-{region.end:#x}"
        for region in regions[:_SHOWN]
    ]
    lines += _more(len(regions), "regions")
    return "\n".join(lines)


def _more(count: int, what: str) -> list[str]:
    return [f"      … and {count - _SHOWN} more {what}"] if count > _SHOWN else []
