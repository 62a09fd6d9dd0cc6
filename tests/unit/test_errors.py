"""Errors: their attributes, their exit codes, and pickling."""

import errno
import pickle

import pytest

from pagescan.model import errors
from pagescan.model.errors import PagescanError, from_oserror

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PagescanError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_facts_when_it_is_pickled(kind: type[PagescanError]) -> None:
    """Pickled errors keep their attributes; an OSError could lose its errno."""
    error = kind(
        "cannot scan 7: no such device (ENODEV)",
        hint="try again",
        pid=7,
        call="ioctl(PAGEMAP_SCAN)",
        errno=errno.ENODEV,
        range=(0x1000, 0x2000),
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.code == kind.code
    for one in (error, again):
        assert str(one) == "cannot scan 7: no such device (ENODEV)"
        assert (one.hint, one.pid, one.call) == ("try again", 7, "ioctl(PAGEMAP_SCAN)")
        assert (one.errno, one.range) == (errno.ENODEV, (0x1000, 0x2000))


@pytest.mark.parametrize("kind", KINDS)
def test_facts_that_are_not_known_are_none(kind: type[PagescanError]) -> None:
    """Attributes that do not apply are None, for most errors the call and the range."""
    error = kind("no")
    facts = error.hint, error.pid, error.call, error.errno, error.range
    assert facts == (None,) * 5


@pytest.mark.parametrize(
    ("code", "pid", "kind", "text"),
    [
        (errno.ESRCH, 7, errors.NoSuchTargetError, "process 7 has ended"),
        (errno.ENOENT, 7, errors.NoSuchTargetError, "process 7 has ended"),
        (errno.ENOENT, None, PagescanError, "no such file or directory (ENOENT)"),
        (errno.EPERM, 7, errors.AccessDeniedError, "(EPERM)"),
        (errno.ENOSYS, 7, errors.KernelUnsupportedError, "(ENOSYS)"),
        (errno.ENOSPC, None, PagescanError, "no space left on device (ENOSPC)"),
        (4095, None, PagescanError, "(4095)"),
    ],
)
def test_an_oserror_becomes_an_error_with_its_facts(
    code: int, pid: int | None, kind: type[PagescanError], text: str
) -> None:
    """The errno decides the class of the error; step and call are attributes."""
    error = from_oserror(
        OSError(code, "no"), doing="do it", pid=pid, call="openat", range=(1, 2)
    )
    assert type(error) is kind
    assert str(error).startswith("cannot do it: ")
    assert text in str(error)
    facts = error.pid, error.call, error.errno, error.range
    assert facts == (pid, "openat", code, (1, 2))
