"""The keeper of a group takes over what is a session, and outlives all other requests.

Its requests `adopt`, `gone` and `told` come with any values and any descriptors.
"""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from pagescan.model.units import now
from pagescan.session.files import DESCRIPTORS
from pagescan.session.record import Membership
from tests.property.test_fuzz import Served, json_values

GROUP = Membership("match", "tests", 0, now())


class Offered:
    """The descriptors of a session of another process, some of them exchanged.

    Attributes:
        fds: The descriptors, in the order in which a keeper takes them over.
    """

    def __init__(
        self, directory: str, pid: int, facts: Any, wrong: dict[str, str], count: int
    ) -> None:
        self._open: list[int] = []
        self.path = f"{directory}/{pid}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(self.path)
        server.listen(4)
        lock = self._keep(os.open(f"{directory}/{pid}.lock", os.O_RDWR | os.O_CREAT))
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(facts).encode(), 0)
        right = {
            "server": self._keep(server.detach()),
            "lock": lock,
            "directory": self._keep(os.open(directory, os.O_RDONLY)),
            "uffd": self._keep(os.open("/dev/null", os.O_RDONLY)),
            "pidfd": self._keep(os.pidfd_open(pid)),
            "pagemap": self._keep(os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)),
        }
        read, write = os.pipe()
        others = {
            "null": self._keep(os.open("/dev/null", os.O_RDWR)),
            "file": self._keep(os.open(__file__, os.O_RDONLY)),
            "folder": right["directory"],
            "pipe": self._keep(read),
            "other end": self._keep(write),
        }
        named = {**right, **{name: others[what] for name, what in wrong.items()}}
        fds = [named[name] for name in DESCRIPTORS]
        self.fds = (fds + fds)[:count]

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def close(self) -> None:
        """Close this side's descriptors."""
        for fd in self._open:
            os.close(fd)


@pytest.fixture(scope="module")
def member() -> Iterator[int]:
    """Return the pid of a process that can be a member."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@contextlib.contextmanager
def serving() -> Iterator[tuple[Served, str]]:
    """Serve a session of the group, in a directory."""
    with tempfile.TemporaryDirectory() as directory:
        made = Served(directory, GROUP)
        made.keeper.household.gone.append({"number": 7})
        try:
            yield made, directory
        finally:
            made.close()


def send(made: Served, client: socket.socket, data: bytes, fds: Sequence[int]) -> Any:
    """Send bytes with descriptors; return the first answer, if there is one."""
    try:
        if fds:
            socket.send_fds(client, [data], fds)
        else:
            client.send(data)
    except OSError:
        return None
    made.turn()
    try:
        answer = client.recv(1 << 16)
    except OSError:
        return None
    return json.loads(answer.partition(b"\n")[0]) if answer else None


wrongs = st.dictionaries(
    st.sampled_from(DESCRIPTORS),
    st.sampled_from(["null", "file", "folder", "pipe", "other end"]),
    max_size=3,
)
changes = st.dictionaries(
    st.sampled_from(
        ["target", "since", "group", "untracked", "armed_at", "epoch", "words"]
    ),
    json_values,
    max_size=2,
)
counts = st.just(len(DESCRIPTORS)) | st.integers(0, 9)
adoptions = st.tuples(st.just("adopt"), wrongs, changes, counts)
asked = st.sampled_from(
    [b'{"op": "gone"}', b'{"op": "told", "last": 0}', b'{"op": "told"}', b'{"op":']
) | json_values.map(
    lambda value: json.dumps({"op": "told", "last": value, "more": value}).encode()
)
steps = st.lists(
    adoptions | st.tuples(st.just("ask"), asked, st.none(), st.booleans()),
    min_size=1,
    max_size=8,
)


@given(steps=steps)
@settings(max_examples=200, deadline=None)
def test_keeper_of_a_group_outlives_its_clients(
    member: int, steps: list[tuple[Any, ...]]
) -> None:
    """After any adoption and question it serves, and has no descriptor too many."""
    with serving() as (made, directory):
        before = len(os.listdir("/proc/self/fd"))
        household = made.keeper.household
        for kind, what, changed, more in steps:
            client = made.connect()
            if kind == "ask":
                fds = (0, 1, 2) if more else ()
                send(made, client, what + b"\n", fds)
            else:
                facts = {
                    **made.keeper.facts,
                    "target": {**made.keeper.facts["target"], "pid": member},
                    **changed,
                }
                offered = Offered(directory, member, facts, what, more)
                answer = send(made, client, b'{"op": "adopt"}\n', offered.fds)
                offered.close()
                taken = member in household.sessions
                assert taken == bool(answer and answer.get("ok")), (answer, what)
                assert not (taken and more < len(DESCRIPTORS))
                assert not (taken and changed.get("group", GROUP) != GROUP)
            client.close()
            made.clients.remove(client)
            made.turn()
            for session in list(household.sessions.values()):
                if session is not made.keeper:
                    assert session.pid == member
                    if not session.ended:  # another descriptor may be readable
                        session.disarm()
                    session.close()
                    del household.sessions[session.pid]
        assert not made.keeper.ended
        assert made.keeper.peers == []
        assert made.ask(b'{"op": "open"}')["alive"] is True
        assert isinstance(made.ask(b'{"op": "gone"}')["gone"], list)
        assert set(household.sessions) == {os.getpid()}
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(household.selector.get_map()) == 2  # its server and its pidfd


def test_the_harness_can_adopt(member: int) -> None:
    """A session that is offered correctly is taken over, and served."""
    with serving() as (made, directory):
        target = {**made.keeper.facts["target"], "pid": member}
        facts = {**made.keeper.facts, "target": target}
        offered = Offered(directory, member, facts, {}, len(DESCRIPTORS))
        answer = send(made, made.connect(), b'{"op": "adopt"}\n', offered.fds)
        offered.close()
        assert answer == {"ok": True, "keeper_pid": os.getpid()}
        adopted = made.keeper.household.sessions[member]
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(offered.path)
        client.setblocking(False)
        opened = send(made, client, b'{"op": "open"}\n', ())
        assert opened["facts"]["target"]["pid"] == member
        client.close()
        made.turn()
        adopted.disarm()
        adopted.close()
        assert not os.path.exists(offered.path)
