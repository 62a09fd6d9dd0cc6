"""The candidates of the completion: targets, sessions, mappings, columns, categories.

click calls these functions with the words before the incomplete one already parsed.
A word that cannot be completed has no candidates: no error is printed into a prompt.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

COMMAND, FILES = "command", "file"
"""The types of completions that the shell itself has to find."""


def complete_target(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names of processes, or pids if the word begins with a digit.

    Root gets the names of all processes, another user those of the own processes.
    """
    from pagescan.model.units import escape
    from pagescan.target.find import named_processes

    named = [one for one in named_processes() if one.ours or not os.geteuid()]
    if incomplete[:1].isdigit():
        return _items(
            (str(one.pid), escape(", ".join(sorted(one.names)))) for one in named
        )
    pids: dict[str, list[int]] = {}
    for one in sorted(named):
        for name in one.names:
            pids.setdefault(name, []).append(one.pid)
    return _items((name, _shown(pids[name])) for name in sorted(pids))


def _shown(pids: list[int]) -> str:
    if len(pids) == 1:
        return f"pid {pids[0]}"
    return f"{len(pids)} processes: --oldest takes {pids[0]}"


def complete_session(
    context: click.Context, parameter: click.Parameter, _incomplete: str
) -> list[CompletionItem]:
    """Offer the targets of the sessions, by pid and by name; one of them."""
    from pagescan.model.units import escape
    from pagescan.session.lookup import keeper_sessions

    if context.params.get(parameter.name or ""):
        return []
    found = [session.target for session in keeper_sessions()]
    pids = [(str(target.pid), escape(target.name)) for target in found]
    names = [(target.name, f"pid {target.pid}") for target in found]
    return _items([*pids, *names])


def complete_range(
    context: click.Context, _parameter: click.Parameter, _incomplete: str
) -> list[CompletionItem]:
    """Offer the names of the mappings of the target that is on the line already."""
    return _mappings(str(context.params.get("target") or ""))


def complete_words(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the next word of `watch`: a target, or one of its mappings."""
    words = context.params.get("words") or ()
    if not words:
        return complete_target(context, parameter, incomplete)
    return _mappings(words[0])


def _mappings(name: str) -> list[CompletionItem]:
    from pagescan.model.errors import PagescanError
    from pagescan.model.units import escape, format_size
    from pagescan.target.find import find_pid
    from pagescan.target.maps import read
    from pagescan.target.process import Target

    sizes: dict[str, int] = {}
    with (
        contextlib.suppress(PagescanError, OSError),
        Target.open(find_pid(name, oldest=True)) as target,
    ):
        for mapping in read(target):
            label = escape(mapping.label)
            sizes[label] = sizes.get(label, 0) + mapping.length
    return _items((label, format_size(size)) for label, size in sizes.items())


def complete_columns(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the columns of the command, after the columns already typed."""
    from pagescan.render.rows import columns_of

    by = context.params.get("by") or "region"
    names = columns_of(context.info_name or "", by)[1]
    before, comma, last = incomplete.rpartition(",")
    sign = last[:1] if last[:1] in ("+", "-") else ""
    if sign == "-" and parameter.name != "sort":
        return []
    typed = set(before.replace("+", "").replace("-", "").split(","))
    return _items(
        (f"{before}{comma}{sign}{name}", "") for name in names if name not in typed
    )


def complete_categories(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    """Offer the categories, after the categories already typed."""
    before, comma, _ = incomplete.rpartition(",")
    typed = before.split(",")
    return _items((f"{before}{comma}{name}", "") for name in names if name not in typed)


def _items(pairs: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    """Return candidates with explanations; `shells` drops those that do not match."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(value, help=shown or None) for value, shown in pairs]
