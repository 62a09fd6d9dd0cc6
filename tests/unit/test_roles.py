"""The roles of processes in a group."""

import os
import time

import pytest

from pagescan.target.roles import Told, role_of, roles_of

WORDS = ["/usr/bin/python3", "/usr/bin/gunicorn", "app:app"]
TICKS = os.sysconf("SC_CLK_TCK")


def now() -> int:
    """Return the start time of a process that begins at this moment."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


def test_parent_of_forks() -> None:
    """The first process of one command line is the parent, and no other is."""
    found = {
        10: Told(1, 1, "gunicorn", WORDS),
        11: Told(2, 10, "gunicorn", WORDS),
        12: Told(3, 11, "gunicorn", WORDS),
        20: Told(4, 10, "sh", ["sh"]),
    }
    assert roles_of(found) == {10: "gunicorn (parent)"}


def test_a_fork_that_is_about_to_call_exec() -> None:
    """A shell that starts commands is no parent of workers."""
    found = {10: Told(1, 1, "sh", ["sh"]), 11: Told(now(), 10, "sh", ["sh"])}
    assert roles_of(found) == {}


def test_parents_of_other_groups() -> None:
    """Several servers of one command line are marked each; a parent outside is not."""
    found = {
        10: Told(1, 1, "web", WORDS),
        11: Told(2, 10, "web", WORDS),
        20: Told(3, 1, "web", WORDS),
        21: Told(4, 20, "web", WORDS),
        31: Told(5, 30, "web", WORDS),
    }
    assert roles_of(found) == {10: "web (parent)", 20: "web (parent)"}


@pytest.mark.parametrize(
    "state", ["idle", "SELECT", "idle in transaction (aborted)", "COMMIT", "BIND"]
)
def test_a_backend_is_the_same_at_each_look(state: str) -> None:
    """What it does now is not a part of its role."""
    title = f"postgres: main: bench shop 10.0.0.7(51234) {state}"
    assert role_of([title]) == "postgres: main: bench shop 10.0.0.7(51234)"
