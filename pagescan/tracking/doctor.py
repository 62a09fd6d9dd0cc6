"""The checks of `pagescan doctor`: what this machine can do, one row per feature."""

import contextlib
import errno
import functools
import mmap
import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

from pagescan import native
from pagescan.model.errors import AccessDeniedError, PagescanError
from pagescan.model.memory import PAGE_SIZE, Category, Kind
from pagescan.model.units import format_size
from pagescan.native import Meter, Pace
from pagescan.scanner.query import Query
from pagescan.scanner.rules import query_rule
from pagescan.target import wp_async
from pagescan.target.kernel import (
    MADV_PAGEOUT,
    PAGES_TRIED,
    UnknownError,
    huge_page_size,
    known_categories,
    own_pagemap,
    own_uffd,
    read_setting,
    scan_own,
)
from pagescan.target.process import Target, read_status, yama_scope
from pagescan.tracking import sample_probes
from pagescan.tracking.mapping_count import most_mappings


class Check(NamedTuple):
    """One row of the answer.

    Attributes:
        name: A short, stable name, which scripts may look up.
        ok: None: it could not be found out.
        why: The finding, in a few words.
        fix: A remedy; None if nothing is wrong. A row that fails because of another
            row's "no" has the fix of that row.
    """

    name: str
    ok: bool | None
    why: str
    fix: str | None = None


class DoctorRow(NamedTuple):
    """One check: its probe, and the remedy for a "no".

    Attributes:
        needed: Whether tracking is impossible without it.
        follows: Rows that must be "yes" before this one is tried.
    """

    name: str
    probe: Callable[[], str]
    fix: str
    needed: bool = False
    follows: tuple[str, ...] = ()


class RefusedError(Exception):
    """A probe's "no", with the reason."""

    def __init__(self, why: str, *, fix: str | None = None) -> None:
        """Take the reason, and a fix if it differs from the row's usual one."""
        super().__init__(why)
        self.fix = fix


def checks() -> tuple[list[Check], bool]:
    """Try every row; return the answers, and whether tracking is possible."""
    answers: list[Check] = []
    can_track = True
    causes: dict[str, Check] = {}  # per "no", the row that caused it
    for row in ROWS:
        cause = next((causes[name] for name in row.follows if name in causes), None)
        if cause is not None:
            answer = Check(row.name, False, f"follows from {cause.name}", cause.fix)
        else:
            answer = _answer(row)
        if answer.ok is False:
            causes[row.name] = cause or answer
            can_track &= not row.needed
        answers.append(answer)
    return answers, can_track


def _answer(row: DoctorRow) -> Check:
    try:
        return Check(row.name, True, row.probe())
    except UnknownError as unknown:
        return Check(row.name, None, str(unknown), row.fix)
    except RefusedError as refused:
        return Check(row.name, False, str(refused), refused.fix or row.fix)
    except AccessDeniedError as denied:  # it names what forbids it
        return Check(row.name, False, str(denied), denied.hint or row.fix)
    except (OSError, PagescanError) as error:
        return Check(row.name, False, _reason(error), row.fix)


def _reason(error: OSError | PagescanError) -> str:
    if isinstance(error, OSError) and error.errno:
        name = errno.errorcode.get(error.errno, str(error.errno))
        return f"{os.strerror(error.errno).lower()} ({name})"
    return str(error)


def _release() -> str:
    return f"Linux {os.uname().release}, {os.uname().machine}"


def _pagemap_scan() -> str:
    known_categories()
    return "the ioctl works"


def _category(bit: Category) -> str:
    if not bit & known_categories():
        raise RefusedError("the kernel does not know it")
    return "the kernel knows it"


def _page_fault_samples() -> str:
    for user_only in (False, True):
        try:
            fd = native.open_faults(0, 0, children=True, user_only=user_only)
        except PermissionError:
            continue
        os.close(fd)
        kinds = "in user mode only" if user_only else "of the kernel, too"
        return f"perf gives a sample of each page fault, {kinds}"
    level = read_setting("/proc/sys/kernel/perf_event_paranoid").strip()
    raise RefusedError(f"perf_event_paranoid is {level}")


def _names() -> str:
    with open("/proc/kallsyms", "rb") as file:
        hidden = file.read(16) == b"0" * 16
    if shutil.which("c++filt") is None:
        raise RefusedError("names of C++ and Rust cannot be read without c++filt")
    if hidden:
        return "of programs; the kernel hides its own from this user"
    return "of programs, of C++ and Rust, and of the kernel"


def _userfaultfd() -> str:
    os.close(wp_async.create())
    return "a userfaultfd can be created (UFFD_USER_MODE_ONLY)"


def _wp_async() -> str:
    with own_uffd():
        return "WP_ASYNC, WP_UNPOPULATED and WP_HUGETLBFS_SHMEM are available"


def _exact(kind: Kind, flags: int, drops: bool) -> str:
    """Arm own pages, store to some, and check that exactly these are found.

    Args:
        kind: The kind of mapping, which decides the rule of the scan.
        flags: The flags of the mapping.
        drops: Drop one written and one unwritten page, and have a third paged out.
    """
    rule = query_rule(kind, Query(Category.WRITTEN, returned=Category.WRITTEN))
    if rule is None:
        raise UnknownError(f"no page of {kind.value} memory can be written")
    length = PAGES_TRIED * PAGE_SIZE
    stored = (3, 5, 11) if drops else (3, 11)
    with (
        mmap.mmap(-1, length, flags=flags | mmap.MAP_ANONYMOUS) as memory,
        own_uffd() as uffd,
        own_pagemap() as pagemap,
    ):
        start = native.address_of(memory)
        for page in range(PAGES_TRIED):
            memory[page * PAGE_SIZE] = 1
        native.uffd_register(uffd, start, start + length)
        native.uffd_protect(
            uffd, start, start + length, align=PAGE_SIZE, pace=Pace(), meter=Meter()
        )
        _ = memory[7 * PAGE_SIZE]
        for page in stored:
            memory[page * PAGE_SIZE] = 2
        if drops:
            for page in (5, 9):
                memory.madvise(mmap.MADV_DONTNEED, page * PAGE_SIZE, PAGE_SIZE)
            with contextlib.suppress(OSError):  # it stays if this is not allowed
                memory.madvise(MADV_PAGEOUT, 11 * PAGE_SIZE, PAGE_SIZE)
        found = list(scan_own(pagemap, start, start + length, rule).starts)
    count = len(stored)
    if found != [start + page * PAGE_SIZE for page in stored]:
        raise RefusedError(
            f"{count} of {PAGES_TRIED} pages were written, and others were found"
        )
    return f"{count} of {PAGES_TRIED} pages were written, and just these were found"


def _attach_child() -> str:
    """Attach to a waiting child, arm nothing, and check that it continues."""
    from pagescan.tracking import attach

    impossible = wp_async.why_impossible()
    if impossible:
        raise RefusedError(
            str(impossible),
            fix="processes are tracked on x86-64; here scan, maps and written_pages()",
        )
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(wait, 1)
        os._exit(7)
    os.close(wait)
    try:
        with Target.open(pid) as target:
            taken = attach.take(target)
            os.close(taken.uffd)
    finally:
        os.close(go)
        _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 7:
        raise RefusedError("the child did not go on as it was")
    return f"a child went on after {taken.stopped_ns // 1000} µs; {taken}"


def _attach_others() -> str:
    level = yama_scope()
    capable = _has_capability(19)  # CAP_SYS_PTRACE
    if level == "3" or (level == "2" and not capable):
        raise RefusedError(f"Yama forbids it (ptrace_scope is {level})")
    if level == "1" and not capable:
        raise RefusedError("only own children: Yama's ptrace_scope is 1")
    if capable:
        return "processes of every user: CAP_SYS_PTRACE"
    return f"processes of this user, uid {os.geteuid()}"


def _has_capability(number: int) -> bool:
    return bool(int(read_status(os.getpid())["CapEff"], 16) >> number & 1)


def _soft_dirty() -> str:
    """Clear own soft-dirty bits, store to a page, and read bit 55 of its word."""
    with mmap.mmap(
        -1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    ) as memory:
        memory[0] = 1
        with open("/proc/self/clear_refs", "w") as file:
            file.write("4")
        memory[0] = 2
        with own_pagemap() as pagemap:
            at = native.address_of(memory) // PAGE_SIZE * 8
            word = int.from_bytes(os.pread(pagemap, 8, at), sys.byteorder)
    if not word >> 55 & 1:
        raise RefusedError("the kernel is built without it (CONFIG_MEM_SOFT_DIRTY)")
    return "the kernel sets the bit"


def _hugetlb() -> str:
    total = int(read_setting("/proc/sys/vm/nr_hugepages"))
    if not total:
        raise UnknownError("no huge pages are reserved, so it was not tried")
    return f"{total} huge pages are reserved"


def _huge_restore() -> str:
    size = huge_page_size()
    if not size:
        raise UnknownError("this kernel has no transparent huge pages")
    if not _has_capability(23):
        raise RefusedError("CAP_SYS_NICE is missing: split huge pages stay split")
    return f"huge pages of {format_size(size)} that tracking splits are put back"


def _swap() -> str:
    lines = read_setting("/proc/swaps").splitlines()[1:]
    return f"{len(lines)} swap areas" if lines else "no swap is in use"


def _map_count() -> str:
    limit = read_setting("/proc/sys/vm/max_map_count").strip()
    return (
        f"a process may have {limit} (vm.max_map_count); from {most_mappings()} on no"
        " more is tracked; cost.mappings_added counts those that tracking adds"
    )


def _sigchld() -> str:
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        raise RefusedError(
            "SIGCHLD is ignored: children vanish before they are waited for"
        )
    return "children are waited for"


_NEWER = (
    f"run Linux {wp_async.SINCE} or newer,"
    " with CONFIG_USERFAULTFD and CONFIG_PROC_PAGE_MONITOR"
)

_TRACKING = ("wp-async", "pagemap-scan")

_SECCOMP = "a seccomp filter may forbid it: containers want a profile that allows it"

ROWS: tuple[DoctorRow, ...] = (
    DoctorRow("kernel", _release, ""),
    DoctorRow("pagemap-scan", _pagemap_scan, _NEWER, needed=True),
    DoctorRow(
        "soft-dirty-category",
        functools.partial(_category, Category.SOFT_DIRTY),
        "run Linux 6.8 or newer; nothing needs it",
        follows=("pagemap-scan",),
    ),
    DoctorRow(
        "guard-category",
        functools.partial(_category, Category.GUARD),
        "run Linux 6.16 or newer; before, guard regions look like swap",
        follows=("pagemap-scan",),
    ),
    DoctorRow("userfaultfd", _userfaultfd, f"{_NEWER}; {_SECCOMP}", needed=True),
    DoctorRow("wp-async", _wp_async, _NEWER, needed=True, follows=("userfaultfd",)),
    DoctorRow(
        "exact-private",
        functools.partial(_exact, Kind.ANON, mmap.MAP_PRIVATE, drops=False),
        "please report this: tracking would not be exact here",
        needed=True,
        follows=_TRACKING,
    ),
    DoctorRow(
        "exact-shared",
        functools.partial(_exact, Kind.SHARED, mmap.MAP_SHARED, drops=True),
        "please report this: shared memory would not be exact here",
        needed=True,
        follows=_TRACKING,
    ),
    DoctorRow(
        "attach-child",
        _attach_child,
        f"ptrace, process_vm and pidfd_getfd must be allowed; {_SECCOMP}",
        needed=True,
        follows=_TRACKING,
    ),
    DoctorRow(
        "attach-others",
        _attach_others,
        "run as root, or: sysctl kernel.yama.ptrace_scope=0",
    ),
    DoctorRow(
        "huge-restore",
        _huge_restore,
        "run as root, or: setcap cap_sys_nice+ep on the Python that runs pagescan",
    ),
    DoctorRow(
        "page-fault-samples",
        _page_fault_samples,
        "run as root, or: sysctl kernel.perf_event_paranoid=2",
    ),
    DoctorRow(
        "fork-events",
        sample_probes.fork_events,
        "run as root: only cow --exact needs it",
        follows=("wp-async",),
    ),
    DoctorRow("code-names", _names, "apt install binutils"),
    DoctorRow("sigchld", _sigchld, "start pagescan with SIGCHLD at its default"),
    DoctorRow("hugetlb", _hugetlb, "sysctl vm.nr_hugepages=16 reserves some to try it"),
    DoctorRow(
        "soft-dirty",
        _soft_dirty,
        "not needed: it was the way to track before userfaultfd",
    ),
    DoctorRow("swap", _swap, ""),
    DoctorRow("mappings", _map_count, ""),
    DoctorRow(
        "ring-memory",
        sample_probes.ring_memory,
        "run as root, or: sysctl kernel.perf_event_mlock_kb=4100",
        follows=("page-fault-samples",),
    ),
)
