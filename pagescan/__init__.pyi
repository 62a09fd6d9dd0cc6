"""The types of the public names, which `__init__.py` loads at their first use."""

from pagescan.attribution.copies import CopyWatch as CopyWatch
from pagescan.attribution.copy_counter import CopyCounter as CopyCounter
from pagescan.attribution.copy_loop import copy_reports as copy_reports
from pagescan.attribution.group_copies import GroupCopyWatch as GroupCopyWatch
from pagescan.attribution.group_writers import GroupWriterWatch as GroupWriterWatch
from pagescan.attribution.writers import WriterWatch as WriterWatch
from pagescan.checkpoint.api import (
    acknowledge as acknowledge,
    changed as changed,
    dump_plan as dump_plan,
)
from pagescan.checkpoint.binary import read_plan as read_plan
from pagescan.checkpoint.plan import Plan as Plan
from pagescan.exporter.collector import MemoryCollector as MemoryCollector
from pagescan.fleet.api import open_fleet as open_fleet
from pagescan.model.batch import Batch as Batch
from pagescan.model.copies import CopyReport as CopyReport
from pagescan.model.errors import (
    AccessDeniedError as AccessDeniedError,
    KernelUnsupportedError as KernelUnsupportedError,
    NoSuchTargetError as NoSuchTargetError,
    PagescanError as PagescanError,
    SessionError as SessionError,
    SessionLostError as SessionLostError,
    TargetError as TargetError,
    UnsuitableTargetError as UnsuitableTargetError,
    UsageError as UsageError,
)
from pagescan.model.groups import (
    GroupLook as GroupLook,
    GroupMaps as GroupMaps,
    GroupScan as GroupScan,
    GroupTick as GroupTick,
    MemberLook as MemberLook,
    MemberUntracked as MemberUntracked,
    ProcessFacts as ProcessFacts,
)
from pagescan.model.looks import Look as Look
from pagescan.model.memory import (
    Category as Category,
    Mapping as Mapping,
    Range as Range,
    Region as Region,
)
from pagescan.model.results import Action as Action
from pagescan.model.writers import WriterReport as WriterReport
from pagescan.recording.api import (
    open_recording as open_recording,
    record as record,
)
from pagescan.recording.store import Recording as Recording
from pagescan.scanner.query import Query as Query
from pagescan.session.api import (
    end_session as end_session,
    look_at_session as look_at_session,
    maps as maps,
    scan as scan,
    sessions as sessions,
    start_session as start_session,
    track as track,
)
from pagescan.session.group_api import (
    GroupTracking as GroupTracking,
    end_group_session as end_group_session,
    look_at_group_session as look_at_group_session,
    maps_group as maps_group,
    scan_group as scan_group,
    start_group_session as start_group_session,
    track_group as track_group,
)
from pagescan.session.record import Session as Session
from pagescan.target.group import (
    Cgroup as Cgroup,
    Container as Container,
    Match as Match,
    Selector as Selector,
    Tree as Tree,
    Unit as Unit,
)
from pagescan.tracking.own_writes import (
    WrittenPages as WrittenPages,
    written_pages as written_pages,
)
from pagescan.tracking.tracking import Tracking as Tracking

__version__: str
__all__: list[str]
