"""Input from outside is parsed like a simple parser in Python does, or is refused.

PAGESCAN_FUZZ_SECONDS sets how long the loop over the maps parser runs; with `make asan`
it also looks for reads and writes out of bounds.
"""

import contextlib
import errno
import json
import os
import random
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from pagescan import native
from pagescan.model.errors import PagescanError, TargetError, UsageError
from pagescan.model.results import TargetFacts
from pagescan.model.units import now, parse_seconds, parse_size
from pagescan.session import held_session
from pagescan.session.record import Membership, Session
from pagescan.target.find import find_pid
from pagescan.target.selection import Selection

SECONDS = float(os.environ.get("PAGESCAN_FUZZ_SECONDS", "2"))

# ---- /proc/PID/maps -----------------------------------------------------------------

LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][sp]) ([0-9a-f]+)"
    rb" ([0-9a-f]+):([0-9a-f]+) ([0-9]+)(?: +([^\n]*))?"
)
ALL = 1 << 64
Row = tuple[int, int, int, int, int, int, bytes]


def plainly(text: bytes) -> list[Row] | None:
    """Parse maps in the simplest way; None: some line is malformed."""
    rows: list[Row] = []
    *lines, rest = text.split(b"\n")
    if rest:
        return None  # cut
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None:
            return None
        start, end, offset, major, minor = (
            int(match[group], 16) for group in (1, 2, 4, 5, 6)
        )
        inode = int(match[7])
        if not start < end or max(end, offset, inode) >= ALL:
            return None
        if max(major, minor) >= 1 << 32:
            return None
        flags = sum(
            1 << bit
            for bit, letter in enumerate(match[3])
            if chr(letter) == "rwxs"[bit]
        )
        name = (match[8] or b"").lstrip(b" ")
        rows.append((start, end, offset, inode, major << 32 | minor, flags, name))
    return rows


def by_shim(text: bytes) -> list[Row] | None:
    """Parse maps as pagescan does."""
    try:
        rows = native.parse_maps(text)
    except OSError as error:
        if error.errno != errno.EBADMSG:
            raise
        return None
    names = [
        text[at : at + length]
        for at, length in zip(rows.name_at, rows.name_length, strict=True)
    ]
    assert set(rows.page_size) <= {0}
    return list(zip(*rows[1:7], names, strict=True))


numbers = st.integers(0, ALL - 1) | st.integers(0, 1 << 70)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Draw a line that is valid or almost valid."""
    low, high, offset, inode = (draw(numbers) for _ in range(4))
    perms = draw(st.from_regex(rb"[r-][w-][x-][sp]", fullmatch=True))
    device = draw(st.tuples(st.integers(0, 1 << 33), st.integers(0, 300)))
    name = draw(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"\\012")))
    blanks = draw(st.sampled_from([b"", b" ", b"    "]))
    return b"%x-%x %s %08x %02x:%02x %d%s" % (
        *(low, high, perms, offset, *device, inode),
        blanks + name if blanks else b"",
    )


@given(text=st.binary(max_size=300))
@example(b"")
@example(b"\n")
@example(b"1-2 rw-p 0 0:0 0")
@example(b"1-2 rw-p 0 0:0 0 ")
@example(b"1-2 rw-p 0 0:0 0     [heap]")
@example(b"1-2 \n\n\n\n 0 0:0 0\n")
@example(b"f" * 16 + b"1-2 rw-p 0 0:0 0\n")
@example(b"1-2 rw-p 0 0:0 99999999999999999999999\n")
@example(b"1-2 rw-p 0 100000000:0 0\n")
@settings(max_examples=300)
def test_any_bytes(text: bytes) -> None:
    """Bytes are rows or a malformed line, like for the simple parser."""
    assert by_shim(text) == plainly(text)


@given(parts=st.lists(lines(), max_size=6), end=st.sampled_from([b"", b"\n"]))
@settings(max_examples=300)
def test_lines(parts: list[bytes], end: bytes) -> None:
    """Lines, valid or almost valid, give the rows that the simple parser finds."""
    text = b"\n".join(parts) + (end if parts else b"")
    assert by_shim(text) == plainly(text)


@pytest.mark.timeout(60 + 2 * SECONDS)
def test_mutated_maps(record_property: Any) -> None:
    """Real maps with bytes changed, removed, doubled or cut off parse the same way."""
    text = Path("/proc/self/maps").read_bytes()
    assert by_shim(text) == plainly(text)
    assert len(by_shim(text) or []) == text.count(b"\n")
    seed = random.SystemRandom().getrandbits(32)
    rolled = random.Random(seed)
    count = right = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        start = rolled.randrange(len(text))
        damaged = bytearray(text[start : start + rolled.choice([40, 200, 2000])])
        if rolled.random() < 0.8:  # most cuts end a whole line
            damaged = damaged[damaged.find(b"\n") + 1 : damaged.rfind(b"\n") + 1]
        for _ in range(rolled.choice([0, 1, 1, 1, 2, 8])):
            at = rolled.randrange(len(damaged) + 1)
            what = rolled.random()
            if what < 0.4:
                damaged[at : at + 1] = bytes([rolled.choice(b"0af-: \n\0x9\xff")])
            elif what < 0.6:
                del damaged[at : at + rolled.choice([1, 3, 30])]
            elif what < 0.8:
                damaged[at:at] = damaged[at : at + rolled.choice([1, 8, 60])]
            else:
                del damaged[at:]
        found = by_shim(bytes(damaged))
        assert found == plainly(bytes(damaged)), (seed, bytes(damaged))
        count += 1
        right += found is not None
    assert 0.05 < right / count < 0.95  # otherwise it tests only one outcome
    record_property("texts", count)


# ---- what people type ----------------------------------------------------------------

typed = st.text(max_size=40) | st.from_regex(
    r"(0[xX])?[0-9a-fA-F]{1,20}[-+](0[xX])?[0-9a-fA-F]{1,20}[KMGTkmgt]?(i?B)?",
    fullmatch=True,
)


@given(word=typed)
@example("9" * 5000 + "-" + "9" * 5001)
@example("0+" + "9" * 5000)
@example("0x-0x1")
@example("0-0x10000000000000000")
@example("0-0x10000000000000001")
@example("١-٢")
@example("[")
@example("*" * 40)
def test_range(word: str) -> None:
    """A RANGE gives a selection, whose text gives it again, or a usage error."""
    try:
        selection = Selection.parse([word])
    except UsageError:
        return
    assert Selection.parse(selection.words) == selection
    for span in selection.ranges:
        assert 0 <= span.start < span.end <= ALL
    assert len(selection.ranges) + len(selection.names) == 1
    assert not selection.select([])


@given(word=st.text(max_size=30) | st.integers().map(str))
@example("9" * 5000)
@example("²")
@example("")
@example("\0")
@example("../self")
@settings(max_examples=60)
def test_target(word: str) -> None:
    """A TARGET gives a pid, or an error that names it."""
    with contextlib.suppress(TargetError, UsageError):
        assert find_pid(word) >= 0


@given(
    text=st.text(max_size=20) | st.from_regex(r"[0-9]{1,400}[KMGT]?", fullmatch=True)
)
@example("9" * 5000)
@example("1e9999")
@example("nan")
def test_sizes_and_times(text: str) -> None:
    """Text gives a size, or a time above zero, or a usage error."""
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 0
    with contextlib.suppress(UsageError):
        assert 0 < parse_seconds(text) < float("inf")


# ---- the keeper's protocol -----------------------------------------------------------


class Served:
    """A keeper in this process, run turn by turn; its target is this process."""

    def __init__(self, directory: str, group: Membership | None = None) -> None:
        pid = os.getpid()
        facts = Session(
            TargetFacts(pid, "tests", None, 1, 4096),
            now(),
            now(),
            "keeper",
            pid,
            [],
            [],
            group=group,
        ).to_json()
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path = f"{directory}/{pid}.sock"
        self.server.bind(self.path)
        self.server.listen(held_session.CLIENTS)
        self.lock = os.open(f"{directory}/{pid}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fds = {
            "server": self.server.detach(),
            "lock": self.lock,
            "directory": os.open(directory, os.O_RDONLY),
            "uffd": os.open("/dev/null", os.O_RDONLY),
            "pidfd": os.pidfd_open(pid),
            "pagemap": os.open("/proc/self/pagemap", os.O_RDONLY),
        }
        self.fds = fds
        self.keeper = held_session.HeldSession(fds, facts)
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """Connect one additional client."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.clients.append(client)
        client.connect(self.path)
        client.setblocking(False)
        return client

    def turn(self) -> None:
        """Let the keeper handle all pending events."""
        for _ in range(20):
            ready = self.keeper.selector.select(0)
            if not ready or self.keeper.ended:
                return
            for key, _ in ready:
                if not self.keeper.ended:
                    key.data()

    def ask(self, request: bytes) -> Any:
        """Ask as an honest client does, and return the answer."""
        client = self.connect()
        client.sendall(request + b"\n")
        self.turn()
        data, fds, _, _ = socket.recv_fds(client, 1 << 16, 1)
        for fd in fds:
            os.close(fd)
        client.close()
        self.turn()
        return json.loads(data)

    def close(self) -> None:
        """Close the keeper and all clients."""
        for client in self.clients:
            client.close()
        self.turn()
        for peer in list(self.keeper.peers):
            peer.connection.close()
        self.keeper.server.close()
        self.keeper.selector.close()
        for name, fd in self.fds.items():
            if name != "server" and not (name == "uffd" and self.keeper.ended):
                os.close(fd)


@contextlib.contextmanager
def served() -> Iterator[Served]:
    """Serve for one example."""
    with tempfile.TemporaryDirectory() as directory:
        made = Served(directory)
        try:
            yield made
        finally:
            made.close()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["op", "facts", "target", "untracked", "start"]), inner
        )
    ),
    max_leaves=8,
)
requests = (
    st.sampled_from(
        [b'{"op": "open"}\n', b'{"op": "begin"}\n', b'{"op": "commit", "facts": {}}\n']
    )
    | json_values.map(lambda value: json.dumps(value).encode() + b"\n")
    | st.binary(max_size=60)
    | st.binary(max_size=20).map(lambda data: data + b"\n")
    | st.just(b"[" * 3000 + b"\n")
    | st.just(b"x" * 5000)
)
steps = st.lists(
    st.tuples(st.integers(0, 3), requests | st.just(None)), min_size=1, max_size=12
)


@given(steps=steps)
@settings(max_examples=200)
def test_keeper_outlives_its_clients(steps: list[tuple[int, bytes | None]]) -> None:
    """After any bytes from several clients and hang-ups, the next client is served."""
    with served() as made:
        before = len(os.listdir("/proc/self/fd"))
        clients: dict[int, socket.socket] = {}
        for number, data in steps:
            if number not in clients:
                clients[number] = made.connect()
            if data is None:
                clients.pop(number).close()
            else:
                with contextlib.suppress(OSError):
                    clients[number].send(data)
            made.turn()
        assert not made.keeper.ended
        assert made.ask(b'{"op": "open"}')["alive"] is True
        for client in clients.values():
            client.close()
        made.turn()
        assert made.keeper.peers == []
        assert made.keeper.rearming is None
        assert made.keeper.waiting == []
        assert len(os.listdir("/proc/self/fd")) == before
        answer = made.ask(b'{"op": "begin"}')
        written = Path(f"/proc/self/fd/{made.lock}").read_bytes()
        assert Session.from_json(json.loads(written)).target.pid == os.getpid()
        assert Session.from_json(answer["facts"]).holder == "keeper"


@given(
    changes=st.dictionaries(
        st.sampled_from(
            [
                "target",
                "since",
                "words",
                "untracked",
                "tracked_bytes",
                "epoch",
                "holder",
            ]
        ),
        json_values,
        min_size=1,
    )
)
@settings(max_examples=100)
def test_keeper_keeps_facts_of_its_own_kind(changes: dict[str, Any]) -> None:
    """After any commit the session can still be disarmed."""
    with served() as made:
        client = made.connect()
        facts = {**made.keeper.facts, **changes}
        client.send(b'{"op": "begin"}\n')
        made.turn()
        with contextlib.suppress(OSError):
            request = {"op": "commit", "facts": facts}
            client.send(json.dumps(request).encode() + b"\n")
        made.turn()
        assert made.keeper.facts["target"]["pid"] == os.getpid()
        assert made.ask(b'{"op": "open"}')["alive"] is True
        assert made.ask(b'{"op": "end"}')["ok"] is True
        assert made.keeper.ended


def test_served_ends() -> None:
    """The harness itself works: `end` is obeyed, and the files are removed."""
    with served() as made:
        assert made.ask(b'{"op": "end"}')["ok"] is True
        assert not os.path.exists(made.path)
        with pytest.raises(OSError, match="No such file"):
            made.connect()


def test_errors_are_ours() -> None:
    """The fuzzers accept only pagescan's own errors as refusals."""
    assert issubclass(UsageError, PagescanError)
    assert issubclass(TargetError, PagescanError)
