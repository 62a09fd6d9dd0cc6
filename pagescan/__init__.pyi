"""The types of the public names, which `__init__.py` loads at their first use."""

from pagescan.checkpoint.api import (
    acknowledge as acknowledge,
)
from pagescan.checkpoint.api import (
    changed as changed,
)
from pagescan.checkpoint.api import (
    dump_plan as dump_plan,
)
from pagescan.checkpoint.binary import read_plan as read_plan
from pagescan.checkpoint.plan import Plan as Plan
from pagescan.model.batch import Batch as Batch
from pagescan.model.errors import (
    AccessDeniedError as AccessDeniedError,
)
from pagescan.model.errors import (
    KernelUnsupportedError as KernelUnsupportedError,
)
from pagescan.model.errors import (
    NoSuchTargetError as NoSuchTargetError,
)
from pagescan.model.errors import (
    PagescanError as PagescanError,
)
from pagescan.model.errors import (
    SessionError as SessionError,
)
from pagescan.model.errors import (
    SessionLostError as SessionLostError,
)
from pagescan.model.errors import (
    TargetError as TargetError,
)
from pagescan.model.errors import (
    UnsuitableTargetError as UnsuitableTargetError,
)
from pagescan.model.errors import (
    UsageError as UsageError,
)
from pagescan.model.looks import Look as Look
from pagescan.model.memory import (
    Category as Category,
)
from pagescan.model.memory import (
    Mapping as Mapping,
)
from pagescan.model.memory import (
    Range as Range,
)
from pagescan.model.memory import (
    Region as Region,
)
from pagescan.model.results import Action as Action
from pagescan.scanner.query import Query as Query
from pagescan.session.api import (
    end_session as end_session,
)
from pagescan.session.api import (
    look_at_session as look_at_session,
)
from pagescan.session.api import maps as maps
from pagescan.session.api import scan as scan
from pagescan.session.api import (
    sessions as sessions,
)
from pagescan.session.api import (
    start_session as start_session,
)
from pagescan.session.api import (
    track as track,
)
from pagescan.session.record import Session as Session
from pagescan.tracking.own_writes import (
    WrittenPages as WrittenPages,
)
from pagescan.tracking.own_writes import (
    written_pages as written_pages,
)
from pagescan.tracking.tracking import Tracking as Tracking

__version__: str
__all__: list[str]
_HOME: dict[str, str]
