"""The keeper and its directory: access, requests, and clients that stall."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import pagescan
from pagescan.session import client as session_client
from pagescan.session.lookup import find_session
from tests import witness
from tests.conftest import (
    ROOTS_SESSIONS,
    SANITIZED,
    STRANGER,
    Result,
    Target,
    command,
    python_of_all,
)

Start = Callable[..., Target]

CLIENTS = 64

pytestmark = pytest.mark.needs("tracking")


def session_dir() -> str:
    """Return the session directory of this user."""
    (listed,) = command("sessions", "--json").json()["sessions"]
    fds = witness.descriptors(listed["keeper_pid"]).values()
    (path,) = {os.path.dirname(path) for path in fds if path.endswith(".lock")}
    return path


def keeper_of(pid: int) -> int:
    """Return the pid of the keeper of a session."""
    for listed in command("sessions", "--json").json()["sessions"]:
        if listed["target"]["pid"] == pid:
            return int(listed["keeper_pid"])
    raise AssertionError(f"no session of {pid}")


def words_of(pid: int) -> list[str]:
    """Return the words of a keeper's command line behind its module."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    at = words.index(b"pagescan.session.keeper")
    return [os.fsdecode(word) for word in words[at + 1 : -1]]


class Client:
    """A client that may violate the protocol."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)  # without a timeout it waits for its turn
        self.socket.settimeout(60 * witness.PATIENCE)

    def send(self, data: bytes) -> None:
        """Send bytes, as long as the keeper reads."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self) -> bytes:
        """Return the answer up to a newline; b"" if the keeper hung up."""
        data = b""
        while not data.endswith(b"\n"):
            try:
                piece, fds, _, _ = socket.recv_fds(self.socket, 1 << 16, 4)
            except ConnectionResetError:
                return b""
            for fd in fds:
                os.close(fd)
            if not piece:
                return b""
            data += piece
        return data

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Target], Client]]:
    """Connect to the socket of a target's keeper."""
    clients: list[Client] = []
    place = cache(session_dir)

    def connected(made: Target) -> Client:
        clients.append(Client(f"{place()}/{made.pid}.sock"))
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


def assert_serves(made: Target) -> None:
    """Assert that a correct client gets its answer, whatever the others do."""
    assert command("diff", made.pid, "--json").code == 0


# ---- data from a client ------------------------------------------------------------


GARBAGE = {
    "nothing": b"\n",
    "no JSON": b"hello\n",
    "no UTF-8": b'{"op": "\xff\xfe"}\n',
    "zeros": bytes(4096) + b"\n",
    "no object": b'[{"op": "open"}]\n',
    "a number": b"5\n",
    "no such request": b'{"op": "dance"}\n',
    "no request": b"{}\n",
    "an object for a name": b'{"op": {}}\n',
    "commit without begin": b'{"op": "commit", "facts": {}}\n',
    "deep": b"[" * 4000 + b"\n",
    "long": b'{"op": "' + b"x" * (16 << 20),
    "begin, deep": b'{"op": "begin"}\n' + b"[" * 1_000_000 + b"\n",
    "begin, long": b'{"op": "begin"}\n' + b"x" * (96 << 20),
    "begin, no facts": b'{"op": "begin"}\n{"op": "commit"}\n',
    "begin, empty facts": b'{"op": "begin"}\n{"op": "commit", "facts": {}}\n',
    "begin, facts of a kind": b'{"op": "begin"}\n{"op": "commit", "facts": 5}\n',
    "a big number": b'{"op": "begin", "x": ' + b"9" * 4000 + b"}\n[",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_the_connection_and_no_more(
    armed: Start, connect: Callable[[Target], Client], data: bytes
) -> None:
    """Whatever one client sends, the same keeper serves the next one."""
    made = armed("m=anon,pages=8,fill=1")
    keeper = keeper_of(made.pid)
    before = len(witness.descriptors(keeper))
    peak = int(witness.status(keeper, "VmHWM").split()[0])
    client = connect(made)
    begin = b'{"op": "begin"}\n'
    if data.startswith(begin):  # a longer message is accepted only during a rearm
        client.send(begin)
        client.answer()
    client.send(data.removeprefix(begin))
    with contextlib.suppress(OSError):
        client.socket.shutdown(socket.SHUT_WR)
    while client.answer():
        pass
    assert_serves(made)
    assert keeper_of(made.pid) == keeper
    # Outside a rearm the keeper accepts only short requests.
    grown = int(witness.status(keeper, "VmHWM").split()[0]) - peak
    assert SANITIZED or grown < ((40 << 10) if b"begin" in data else (2 << 10))
    witness.wait_for(lambda: len(witness.descriptors(keeper)) == before)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", {"pid": 1, "name": "init", "exe": None}),
        ("untracked", [{"start": "x", "end": 5}]),
        ("untracked", [5]),
        ("words", 5),
        ("tracked_bytes", "much"),
        ("since", 5),
        ("more", 1),
    ],
)
def test_facts_of_something_else_are_not_kept(
    armed: Start, connect: Callable[[Target], Client], key: str, value: object
) -> None:
    """Facts in a commit must belong to this session; else nothing changes."""
    made = armed("m=anon,pages=8,fill=1")
    client = connect(made)
    client.send(b'{"op": "begin"}\n')
    facts = json.loads(client.answer())["facts"]
    facts[key] = value
    client.send(json.dumps({"op": "commit", "facts": facts}).encode() + b"\n")
    assert client.answer() == b""
    assert_serves(made)
    look = command("diff", made.pid, "--json").json()
    assert look["session"]["since"] is None  # it may have protected something


def test_many_requests_at_once_are_answered_one_by_one(
    armed: Start, connect: Callable[[Target], Client]
) -> None:
    """Requests sent ahead, byte by byte or all at once, each get an answer."""
    made = armed("m=anon,pages=8,fill=1")
    client = connect(made)
    client.send(b'{"op": "open"}\n' * 20)
    for byte in b'{"op": "open"}\n':
        client.send(bytes([byte]))
    answers = b""
    while answers.count(b"\n") < 21:
        answers += client.answer()
    assert all(json.loads(line)["alive"] for line in answers.splitlines())


# ---- clients that stall ------------------------------------------------------------


def test_clients_that_stall_make_room(
    armed: Start, connect: Callable[[Target], Client]
) -> None:
    """Half messages from more clients than fit do not block the next one."""
    made = armed("m=anon,pages=8,fill=1")
    keeper = keeper_of(made.pid)
    before = len(witness.descriptors(keeper))
    clients = [connect(made) for _ in range(CLIENTS + 40)]
    for client in clients:
        client.send(b'{"op": "op')
    assert_serves(made)
    assert len(witness.descriptors(keeper)) <= before + CLIENTS
    # The last clients are still served.
    clients[-1].send(b'en"}\n')
    assert json.loads(clients[-1].answer())["alive"]
    for client in clients:
        client.close()
    witness.wait_for(lambda: len(witness.descriptors(keeper)) == before)


def test_more_commands_than_fit_into_the_queue(armed: Start) -> None:
    """A client that finds the queue full waits for its turn."""
    made = armed("m=anon,pages=8,fill=1")
    path = f"{session_dir()}/{made.pid}.sock"
    with witness.stopped(keeper_of(made.pid)), contextlib.ExitStack() as queue:
        with contextlib.suppress(BlockingIOError):
            for _ in range(10 * CLIENTS):
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                queue.callback(client.close)
                client.setblocking(False)
                client.connect(path)
        look = subprocess.Popen(
            [sys.executable, "-m", "pagescan", "diff", str(made.pid), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        witness.wait_for(lambda: sleeps_in(look.pid) == CONNECT)
        assert look.poll() is None
        os.kill(keeper_of(made.pid), signal.SIGCONT)
        _, err = look.communicate(timeout=60)
    assert look.returncode == 0, err


CONNECT = "42"  # of x86-64


def sleeps_in(pid: int) -> str:
    """Return the number of the system call that a process waits in."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return ""


def test_a_client_that_does_not_read(
    armed: Start, connect: Callable[[Target], Client]
) -> None:
    """A client that sends requests but reads no answer is no longer served."""
    made = armed("m=anon,pages=8,fill=1")
    keeper = keeper_of(made.pid)
    before = int(witness.status(keeper, "VmRSS").split()[0])
    client = connect(made)
    # No more at a time than the keeper reads, but more answers than a socket holds.
    client.send(b'{"op": "open"}\n' * 270)
    assert_serves(made)
    client.socket.setblocking(False)
    sent = 0
    with contextlib.suppress(OSError):  # the socket is full, or closed
        while sent < 64 << 20:
            sent += client.socket.send(b'{"op": "open"}\n' * 270)
    assert sent < 4 << 20, "all of it was heard"
    assert_serves(made)
    assert int(witness.status(keeper, "VmRSS").split()[0]) - before < 4 << 10


def test_a_stalled_rearm_blocks_rearming_alone(
    armed: Start, connect: Callable[[Target], Client]
) -> None:
    """If a rearming client stalls, others can look; a rearm reports the cause."""
    made = armed("m=anon,pages=8,fill=1")
    client = connect(made)
    client.send(b'{"op": "begin"}\n')
    assert json.loads(client.answer())["alive"]
    assert_serves(made)
    result = command("diff", made.pid, "--rearm")
    assert result.code == 1
    assert "another command is rearming it" in result.stderr
    client.close()
    witness.wait_for(
        lambda: command("diff", made.pid, "--json").json()["session"]["since"] is None
    )
    assert command("diff", made.pid, "--rearm").code == 0
    look = command("diff", made.pid, "--json").json()
    assert look["session"]["since"] is not None


def test_a_stopped_keeper(armed: Start) -> None:
    """A stopped keeper does not answer; the message names its session."""
    made = armed("m=anon,pages=8,fill=1")
    with witness.stopped(keeper_of(made.pid)):
        result = command("diff", made.pid)
    assert result.code == 1
    assert f"session {made.pid} does not answer" in result.stderr
    assert_serves(made)


def test_looks_and_rearms_at_once(armed: Start) -> None:
    """Twenty commands at once all get an answer, and none reports a lost session."""
    made = armed("m=anon,pages=64,fill=1")
    made.write("m", set(range(0, 64, 2)))
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pagescan", "diff", str(made.pid), "--json"]
            + (["--rearm"] if number % 2 else []),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(20)
    ]
    found = []
    for number, process in enumerate(running):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        if number % 2:
            found.append(made.pages(json.loads(out), "m"))
    # Each written page is in one of the looks that rearmed, and in one only.
    assert sorted(page for pages in found for page in pages) == list(range(0, 64, 2))


# ---- the end of a session during a request -----------------------------------------


def test_disarmed_meanwhile(armed: Start, connect: Callable[[Target], Client]) -> None:
    """A look that waits while another command disarms reports an ended session."""
    made = armed("m=anon,pages=8,fill=1")
    client = connect(made)
    client.send(b'{"op": "begin"}\n')
    client.answer()
    keeper = keeper_of(made.pid)
    before = sockets(keeper)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "diff", str(made.pid), "--rearm"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    witness.wait_for(lambda: sockets(keeper) > before)
    assert command("disarm", made.pid).code == 0
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert b"was ended by another command" in err
    assert not os.path.exists(f"/proc/{keeper}/fd") or not sockets(keeper)


def sockets(pid: int) -> int:
    """Return how many sockets a process has open: its own, and one per client."""
    names = witness.descriptors(pid).values()
    return sum(name.startswith("socket:") for name in names)


@pytest.mark.parametrize("reaped", [True, False])
def test_target_ends_meanwhile(
    armed: Start, connect: Callable[[Target], Client], reaped: bool
) -> None:
    """A look that waits while the target ends exits with 3, also for a zombie."""
    made = armed("m=anon,pages=8,fill=1")
    client = connect(made)
    client.send(b'{"op": "begin"}\n')
    client.answer()
    keeper = keeper_of(made.pid)
    before = sockets(keeper)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "diff", str(made.pid), "--rearm"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    witness.wait_for(lambda: sockets(keeper) > before)
    made.tell("quit")
    if reaped:
        made.process.wait()
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 3, err
    assert b"has ended" in err


def test_garbage_in_lock_files() -> None:
    """Invalid lock files that no process holds are not sessions, and are removed."""
    if os.geteuid():
        pytest.skip("the directory of the tests' own is root's")
    made = {
        "1.lock": b"",
        "2.lock": b"{",
        "3.lock": b'{"target": 5}',
        "4.lock": b"[" * 100_000,
        "5.lock": b"\xff\xfe",
        "²².lock": b"",
        "x.lock": b"",
    }
    for name, data in made.items():
        Path(ROOTS_SESSIONS, name).write_bytes(data)
    os.mkfifo(f"{ROOTS_SESSIONS}/6.lock")
    os.symlink("/etc/passwd", f"{ROOTS_SESSIONS}/7.lock")
    try:
        result = command("sessions", "--json", timeout=60)
        assert (result.code, result.json()["sessions"]) == (0, [])
        left = {os.path.basename(path) for path in os.listdir(ROOTS_SESSIONS)}
        assert left == {"²².lock", "x.lock", "7.lock"}
        assert "root:" in Path("/etc/passwd").read_text()
    finally:
        for name in os.listdir(ROOTS_SESSIONS):
            os.unlink(f"{ROOTS_SESSIONS}/{name}")


# ---- the owner of the directory ----------------------------------------------------


@pytest.mark.needs("root")
def test_files_are_the_owners_alone(armed: Start) -> None:
    """The directory has mode 0700, and all files belong to the user."""
    made = armed("m=anon,pages=8,fill=1")
    facts = os.stat(ROOTS_SESSIONS)
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o700)
    lock = os.stat(f"{ROOTS_SESSIONS}/{made.pid}.lock")
    assert (lock.st_uid, stat.S_IMODE(lock.st_mode)) == (0, 0o600)


@pytest.mark.needs("root")
@pytest.mark.parametrize(("mode", "owner"), [(0o755, 0), (0o710, 0), (0o700, STRANGER)])
def test_a_directory_that_others_may_enter_is_refused(
    target: Start, mode: int, owner: int
) -> None:
    """Wrong rights or owner are refused; the message tells the right ones."""
    made = target("m=anon,pages=8,fill=1")
    os.chmod(ROOTS_SESSIONS, mode)
    os.chown(ROOTS_SESSIONS, owner, -1)
    try:
        result = command("arm", made.pid)
    finally:
        os.chown(ROOTS_SESSIONS, 0, -1)
        os.chmod(ROOTS_SESSIONS, 0o700)
    assert result.code == 1
    assert f"no directory for sessions: {ROOTS_SESSIONS}" in result.stderr
    assert "hint: one of them must belong to this user, with mode 0700" in result.stderr


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", ["lock", "sock"])
def test_planted_links_are_not_followed(
    target: Start, tmp_path: Path, name: str
) -> None:
    """A link in place of a session's file is not followed; its target stays."""
    made = target("m=anon,pages=8,fill=1")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = f"{ROOTS_SESSIONS}/{made.pid}.{name}"
    os.symlink(victim, link)
    try:
        result = command("arm", made.pid)
        if name == "lock":
            assert result.code == 1, result
            assert "lock file" in result.stderr
            assert os.path.islink(link)
        else:
            assert result.code == 0, result
            assert not os.path.islink(link)
            assert command("disarm", made.pid).code == 0
        assert victim.read_text() == "precious"
        assert witness.registered(made.pid) == 0
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)


class Stranger:
    """An ordinary user with a home directory, who does not run the tests."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runtime = home / "runtime"
        for name in ("pagescan", "click", "_cffi_backend"):
            spec = find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            if spec.submodule_search_locations:
                shutil.copytree(Path(spec.origin).parent, home / name)
            else:
                shutil.copy(spec.origin, home)
        self.runtime.mkdir()
        os.chown(self.runtime, STRANGER, STRANGER)
        home.chmod(0o755)

    def popen(self, *words: object, **more: str) -> subprocess.Popen[str]:
        """Start a Python as that user."""
        return subprocess.Popen(
            [str(python_of_all()), *map(str, words)],
            user=STRANGER,
            group=STRANGER,
            extra_groups=[],
            env={
                "PYTHONPATH": str(self.home),
                "PYTHONDONTWRITEBYTECODE": "1",
                "XDG_RUNTIME_DIR": str(self.runtime),
                **more,
            },
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *words: object, **more: str) -> Result:
        """Run the command as that user."""
        process = self.popen("-m", "pagescan", *words, **more)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, out, err)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """An ordinary user, whose sessions are removed at the end."""
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    yield Stranger(home)
    shutil.rmtree(home)


@pytest.fixture
def theirs(stranger: Stranger) -> Iterator[int]:
    """A process of that user that allows to be traced under Yama."""
    code = (
        "import ctypes,sys;"
        "ctypes.CDLL(None).prctl(0x59616d61,ctypes.c_ulong(-1),0,0,0);"
        "print('ready',flush=True);sys.stdin.read()"
    )
    process = stranger.popen("-c", code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process.pid
    process.communicate()


@pytest.mark.needs("stranger")
class TestOrdinaryUser:
    """Sessions of an ordinary user and of others, as that user sees them."""

    def test_session_of_its_own(self, stranger: Stranger, theirs: int) -> None:
        """Arm, diff and disarm work; the directory is made with mode 0700."""
        assert stranger.command("arm", theirs).code == 0
        made = os.stat(stranger.runtime / "pagescan")
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (STRANGER, 0o700)
        assert stranger.command("diff", "--json").code == 0
        root = command("diff", theirs)
        assert root.code == 4
        assert "another user's session" in root.stderr
        assert f"sudo -u '#{STRANGER}' pagescan sessions" in root.stderr
        assert command("arm", theirs).code == 1  # all of it is registered already
        assert stranger.command("diff", theirs).code == 0
        assert stranger.command("disarm").code == 0
        assert os.listdir(stranger.runtime / "pagescan") == []
        assert witness.registered(theirs) == 0

    def test_session_of_root(self, stranger: Stranger, theirs: int) -> None:
        """An ordinary user cannot use a session of root: exit code 4."""
        assert command("arm", theirs).code == 0
        for verb in ("diff", "disarm"):
            result = stranger.command(verb, theirs)
            assert result.code == 4, result.stderr
            assert "another user's session" in result.stderr
            assert "as root: pagescan sessions" in result.stderr
        assert stranger.command("diff").code == 1
        assert command("disarm", theirs).code == 0

    def test_keeper_asks_who_it_is(self, stranger: Stranger, theirs: int) -> None:
        """Even if the directory is open to all, the keeper answers only its owner."""
        assert command("arm", theirs).code == 0
        path = f"{ROOTS_SESSIONS}/{theirs}.sock"
        code = (
            "import socket;s=socket.socket(socket.AF_UNIX);"
            f's.connect({path!r});s.sendall(b\'{{"op": "open"}}\\n\');'
            "print(s.recv(100))"
        )
        closed = stranger.popen("-c", code).communicate()[1]
        assert "PermissionError" in closed
        os.chmod(ROOTS_SESSIONS, 0o755)
        os.chmod(path, 0o777)
        try:
            out, err = stranger.popen("-c", code).communicate()
        finally:
            os.chmod(ROOTS_SESSIONS, 0o700)
        assert out == "b''\n" or "Connection reset" in err or "Broken pipe" in err
        assert command("diff", theirs).code == 0
        assert command("disarm", theirs).code == 0

    def test_a_link_is_no_directory(self, stranger: Stranger, theirs: int) -> None:
        """A symbolic link in place of the directory is not followed."""
        elsewhere = stranger.home / "elsewhere"
        elsewhere.mkdir(0o700)
        os.chown(elsewhere, STRANGER, STRANGER)
        (stranger.runtime / "pagescan").symlink_to(elsewhere)
        fallback = Path(f"/tmp/pagescan-{STRANGER}")
        try:
            assert stranger.command("arm", theirs).code == 0
            assert os.listdir(elsewhere) == []
            assert f"{theirs}.lock" in os.listdir(fallback)
            assert stranger.command("disarm", theirs).code == 0
            fallback.rmdir()
            # If another user's file is in each place, no place is left.
            fallback.mkdir(0o777)
            result = stranger.command("arm", theirs)
            assert result.code == 1
            assert "no directory for sessions" in result.stderr
            assert stranger.command("sessions").code == 0
            assert witness.registered(theirs) == 0
        finally:
            fallback.rmdir()

    def test_long_names(self, stranger: Stranger, theirs: int) -> None:
        """A path that is too long for a socket works; an impossible one is refused."""
        deep = stranger.runtime / ("d" * 200) / ("e" * 200)
        deep.mkdir(parents=True)
        os.chown(deep, STRANGER, STRANGER)
        for verb in ("arm", "diff", "disarm"):
            result = stranger.command(verb, theirs, XDG_RUNTIME_DIR=str(deep))
            assert result.code == 0, result.stderr
        assert (deep / "pagescan").is_dir()
        long = "/" + "x" * 300
        try:
            for verb in ("arm", "diff", "disarm"):
                result = stranger.command(verb, theirs, XDG_RUNTIME_DIR=long)
                assert result.code == 0, result.stderr
        finally:
            os.rmdir(f"/tmp/pagescan-{STRANGER}")

    def test_relative_runtime_directory_is_ignored(
        self, stranger: Stranger, theirs: int
    ) -> None:
        """A relative one would differ between commands."""
        try:
            for verb in ("arm", "diff", "disarm"):
                result = stranger.command(verb, theirs, XDG_RUNTIME_DIR="tmp")
                assert result.code == 0, result.stderr
        finally:
            os.rmdir(f"/tmp/pagescan-{STRANGER}")

    def test_a_planted_socket(self, armed: Start) -> None:
        """A socket on which another user listens is not used, and nothing hangs."""
        made = armed("m=anon,pages=8,fill=1")
        path = f"{ROOTS_SESSIONS}/{made.pid}.sock"
        os.rename(path, f"{path}.away")
        code = (
            "import os,socket,sys;s=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);"
            f"os.setuid({STRANGER});s.listen();print('ready',flush=True);"
            "print(s.accept()[0].recv(100),flush=True)"
        )
        planted = subprocess.Popen(
            [str(python_of_all()), "-c", code, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert planted.stdout is not None
            assert planted.stdout.readline() == b"ready\n"
            result = command("diff", made.pid)
            assert result.code == 1
            assert "does not answer" in result.stderr
            assert planted.stdout.readline() == b"b''\n", "it was asked something"
        finally:
            planted.communicate()
            os.rename(f"{path}.away", path)
        assert_serves(made)


def test_a_copy_of_the_descriptor_does_not_matter(target: Start) -> None:
    """If a child forked within the attach has a copy, disarm still unregisters all."""
    made = target("m=anon,pages=8,fill=1", "s=shmem,pages=8")
    assert command("arm", made.pid).code == 0
    with session_client.Client(find_session(made.pid)) as client:
        copy = os.dup(client.open().uffd)
    try:
        assert witness.registered(made.pid) > 0
        assert command("disarm", made.pid).code == 0
        assert witness.registered(made.pid) == 0
    finally:
        os.close(copy)
    tracking = pagescan.track(made.pid)
    copy = os.dup(tracking.uffd)
    try:
        tracking.close()
        assert witness.registered(made.pid) == 0
    finally:
        os.close(copy)


def test_armer_killed_before_it_is_confirmed(target: Start) -> None:
    """A keeper that cannot confirm to its command ends, and leaves nothing."""
    made = target("m=anon,pages=8,fill=1")
    code = (
        "import os,signal,sys\n"
        "from pagescan.session import spawn as start\n"
        "spawn = start._spawn\n"
        "def dies(*words):\n"
        "    spawn(*words)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "start._spawn = dies\n"
        "from pagescan.cli import run\n"
        "sys.argv = ['pagescan', 'arm', sys.argv[1]]\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made.pid)], check=False)
    assert done.returncode == -signal.SIGKILL
    witness.wait_for(lambda: witness.registered(made.pid) == 0)
    result = command("diff", made.pid)
    assert result.code == 1
    assert "no session" in result.stderr


def test_ps_shows_whose_keeper_it_is(target: Start) -> None:
    """The command line has the pid of the target, and not its name."""
    made = target("m=anon,pages=4,fill=1")
    assert command("arm", made.pid).code == 0
    words = words_of(keeper_of(made.pid))
    assert words[0] == str(made.pid)
    name = Path(f"/proc/{made.pid}/comm").read_text().strip()
    assert not any(name in word for word in words)


def test_ps_shows_of_which_group_a_keeper_is(target: Start) -> None:
    """The command line has the option that selects the group, as it was given."""
    made = target("m=anon,pages=4,fill=1")
    assert command("arm", "--tree", made.pid).code == 0
    assert words_of(keeper_of(made.pid))[:2] == ["--tree", str(made.pid)]
