"""pagescan: which pages a live process has written, exactly and almost for free.

This is the library behind the commands. Each public name is loaded at its first use,
so that `import pagescan` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing for it would load 24 more files
if TYPE_CHECKING:
    from typing import Any

    from pagescan.api import maps as maps
    from pagescan.api import scan as scan
    from pagescan.api import track as track
    from pagescan.block import WrittenPages as WrittenPages
    from pagescan.block import written_pages as written_pages
    from pagescan.checkpoint import acknowledge as acknowledge
    from pagescan.checkpoint import changed as changed
    from pagescan.errors import (
        AccessDeniedError as AccessDeniedError,
    )
    from pagescan.errors import (
        KernelUnsupportedError as KernelUnsupportedError,
    )
    from pagescan.errors import (
        NoSuchTargetError as NoSuchTargetError,
    )
    from pagescan.errors import (
        PagescanError as PagescanError,
    )
    from pagescan.errors import (
        SessionError as SessionError,
    )
    from pagescan.errors import (
        SessionLostError as SessionLostError,
    )
    from pagescan.errors import (
        TargetError as TargetError,
    )
    from pagescan.errors import (
        UnsuitableTargetError as UnsuitableTargetError,
    )
    from pagescan.errors import (
        UsageError as UsageError,
    )
    from pagescan.model import Action as Action
    from pagescan.model import Category as Category
    from pagescan.model import Mapping as Mapping
    from pagescan.model import Range as Range
    from pagescan.model import Region as Region
    from pagescan.plan import Plan as Plan
    from pagescan.regions import Batch as Batch
    from pagescan.scanner import Query as Query
    from pagescan.session import Session as Session
    from pagescan.session_api import dump_plan as dump_plan
    from pagescan.session_api import end_session as end_session
    from pagescan.session_api import look_at_session as look_at_session
    from pagescan.session_api import sessions as sessions
    from pagescan.session_api import start_session as start_session
    from pagescan.tracking import Look as Look
    from pagescan.tracking import Tracking as Tracking

__version__ = "0.1.0"

_HOME = {
    "AccessDeniedError": "errors",
    "Action": "model",
    "Batch": "regions",
    "Category": "model",
    "KernelUnsupportedError": "errors",
    "Look": "tracking",
    "Mapping": "model",
    "NoSuchTargetError": "errors",
    "PagescanError": "errors",
    "Plan": "plan",
    "Query": "scanner",
    "Range": "model",
    "Region": "model",
    "Session": "session",
    "SessionError": "errors",
    "SessionLostError": "errors",
    "TargetError": "errors",
    "Tracking": "tracking",
    "UnsuitableTargetError": "errors",
    "UsageError": "errors",
    "WrittenPages": "block",
    "acknowledge": "checkpoint",
    "changed": "checkpoint",
    "dump_plan": "session_api",
    "end_session": "session_api",
    "look_at_session": "session_api",
    "maps": "api",
    "scan": "api",
    "sessions": "session_api",
    "start_session": "session_api",
    "track": "api",
    "written_pages": "block",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - strings all the same


if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        """Load a public name from its module at its first use (PEP 562)."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"pagescan.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
