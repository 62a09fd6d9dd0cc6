"""A session is confirmed once it is on disk, and is found if its file is damaged."""

import contextlib
import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.session.locks import Lock
from tests import machine, witness
from tests.conftest import HERE, ROOTS_SESSIONS, STRANGER, Target, command

pytestmark = [pytest.mark.needs("tracking", "root")]
Start = Callable[..., Target]
PLACE = Path(ROOTS_SESSIONS)


def fill(place: Path) -> None:
    """Fill the disk to the last byte."""
    with contextlib.suppress(OSError), open(place / "fill", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def limited(size: int) -> Callable[[], None]:
    """Return a function that limits the size of files in a child."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run(*words: object, **how: object) -> subprocess.CompletedProcess[str]:
    """Run the command, with further arguments for subprocess.

    It writes no byte code: a limit on the size of files would cut it short.
    """
    line = [sys.executable, "-B", "-m", "pagescan", *map(str, words)]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        line, capture_output=True, text=True, check=False, timeout=60, **how
    )


def assert_nothing_is_left(made: Target) -> None:
    """Assert that no protection, no session and no keeper is left."""
    assert witness.registered(made.pid) == 0
    assert command("sessions", "--json").json()["sessions"] == []
    assert not list(PLACE.glob(f"{made.pid}.*"))
    assert "tracked" not in command("diff", made.pid).stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=4k,mode=700", "no space left on device (ENOSPC)"),
        ("nr_inodes=1,mode=700", "no space left on device (ENOSPC)"),
        ("ro,mode=700", "read-only file system (EROFS)"),
    ],
)
@pytest.mark.parametrize("verb", ["arm", "watch", "start_session", "track"])
def test_no_room_for_a_session(
    verb: str, options: str, said: str, target: Start
) -> None:
    """The command names the cause, exits with 1, and leaves nothing in the target."""
    made = target("m=anon,pages=40,fill=1")
    with machine.tmpfs(PLACE, options):
        if "size" in options:
            fill(PLACE)
        if verb in ("arm", "watch"):
            result = command(verb, made.pid, *(["-n", 1] if verb == "watch" else []))
            assert result.code == 1, result
            text = result.stderr.splitlines()[-1]
            text = result.stderr.splitlines()[-2] if "hint:" in text else text
        else:
            with pytest.raises(pagescan.PagescanError) as caught:
                getattr(pagescan, verb)(made.pid)
            text = str(caught.value)
        assert said in text
        (PLACE / "fill").unlink(missing_ok=True) if "ro" not in options else None
        assert_nothing_is_left(made)


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("verb", ["arm", "watch"])
def test_files_may_have_no_size(verb: str, size: int, target: Start) -> None:
    """With `ulimit -f 0` the message names the limit."""
    made = target("m=anon,pages=40,fill=1")
    words = ["-n", "1"] if verb == "watch" else []
    done = run(verb, made.pid, *words, preexec_fn=limited(size))
    assert done.returncode == 1
    assert "file too large (EFBIG)" in done.stderr
    assert "ulimit -f" in done.stderr
    assert_nothing_is_left(made)


@pytest.mark.parametrize("verb", ["arm", "diff", "disarm"])
def test_a_process_that_is_being_armed(verb: str, target: Start) -> None:
    """It has a lock file without facts: the message says what is going on."""
    made = target("m=anon,pages=40,fill=1")
    lock = Lock.take(made.pid)
    try:
        result = command(verb, made.pid)
        assert result.code == 1
        assert f"process {made.pid} is being armed by another command" in result.stderr
    finally:
        lock.remove()
        lock.close()


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 5000, b"\xff"])
def test_a_damaged_file_hides_no_session(text: bytes, armed: Start) -> None:
    """If a locked file has no valid facts, the keeper is asked."""
    made = armed("m=anon,pages=40,fill=1")
    made.write("m", {5})
    (PLACE / f"{made.pid}.lock").write_bytes(text)
    (listed,) = command("sessions", "--json").json()["sessions"]
    assert listed["target"]["pid"] == made.pid
    assert made.pages(command("diff", made.pid, "--json").json(), "m") == {5}
    assert "tracked already: session" in command("arm", made.pid).stderr
    assert command("disarm", made.pid).code == 0
    assert_nothing_is_left(made)


def test_full_by_the_next_rearm(target: Start) -> None:
    """Later facts that do not fit on disk are still available from the keeper."""
    made = target("m=anon,pages=40,fill=1")
    with machine.tmpfs(PLACE, "size=16k,mode=700"):
        assert command("arm", made.pid).code == 0
        fill(PLACE)
        made.write("m", {5})
        found = command("diff", made.pid, "--rearm", "--json")
        assert made.pages(found.json(), "m") == {5}
        made.write("m", {6})
        assert made.pages(command("diff", made.pid, "--json").json(), "m") == {6}
        assert command("disarm", made.pid).code == 0
        (PLACE / "fill").unlink()
        assert_nothing_is_left(made)


@pytest.mark.parametrize("umask", [0o777, 0o077, 0o000, 0o377])
def test_the_umask_does_not_decide(umask: int, tmp_path: Path, target: Start) -> None:
    """Directory, lock and socket have the right modes, and the owner can use them."""
    made = target("m=anon,pages=40,fill=1")
    (PLACE / "sentinel").touch()
    for path in PLACE.iterdir():
        path.unlink()
    done = run("arm", made.pid, umask=umask)
    assert done.returncode == 0, done.stderr
    for suffix in ("lock", "sock"):
        assert stat.S_IMODE((PLACE / f"{made.pid}.{suffix}").stat().st_mode) == 0o600
    assert command("disarm", made.pid).code == 0
    runtime = tmp_path / "run"
    runtime.mkdir()
    code = (
        "import os; from pagescan.session.locks import open_directory;"
        f"os.setuid({STRANGER}); os.umask({umask});"
        "os.close(open_directory(create=True))"
    )
    os.chown(runtime, STRANGER, -1)
    for parent in [runtime, *runtime.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o711)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert stat.S_IMODE((runtime / "pagescan").stat().st_mode) == 0o700


# ---- reasons why a keeper does not start --------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Make a program that replaces Python."""

    def make(text: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "kill -9 $$",
            "it was killed by SIGKILL, for lack of memory or by another process",
        ),
        ("kill -6 $$", "it was killed by SIGABRT"),
        ("exit 3", "it ended with exit code 3"),
        ("echo 'No module named x' >&2; exit 1", "No module named x"),
    ],
)
def test_a_keeper_that_does_not_start(
    text: str,
    said: str,
    program: Callable[[str], str],
    target: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message tells how it ended, or what it printed; nothing is left."""
    made = target("m=anon,pages=40,fill=1")
    monkeypatch.setattr(sys, "executable", program(text))
    with pytest.raises(pagescan.PagescanError) as caught:
        pagescan.start_session(made.pid)
    monkeypatch.undo()
    assert str(caught.value) == f"the keeper of the session did not start: {said}"
    assert_nothing_is_left(made)


def test_python_path_reaches_the_keeper(target: Start) -> None:
    """The keeper also finds modules that only PYTHONPATH leads to."""
    made = target("m=anon,pages=40,fill=1")
    import _cffi_backend

    places = [str(HERE.parent), os.path.dirname(_cffi_backend.__file__)]
    base = os.path.realpath(sys.executable)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [base, "-m", "pagescan", "arm", str(made.pid)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert command("disarm", made.pid).code == 0


def test_a_host_whose_descriptors_are_closed(target: Start) -> None:
    """A host with 0, 1 and 2 closed: its keeper gets all its descriptors."""
    made = target("m=anon,pages=40,fill=1")
    code = (
        "import os, sys, pagescan\n"
        "[os.close(fd) for fd in range(3)]\n"
        f"pagescan.start_session({made.pid})\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0
    made.write("m", {5})
    assert made.pages(command("diff", made.pid, "--json").json(), "m") == {5}


def test_a_host_puts_its_own_files_at_0_to_2(target: Start) -> None:
    """Tracking uses none of them, so a host that opens files there harms nothing."""
    made = target("m=anon,pages=40,fill=1")
    code = (
        "import os, sys, pagescan\n"
        "[os.close(fd) for fd in range(3)]\n"
        f"with pagescan.track({made.pid}) as tracking:\n"
        "    fds = tracking.uffd, tracking.target.pidfd, tracking.target.pagemap\n"
        "    fds += tracking.lock.fd, tracking.lock.directory\n"
        "    for fd in range(3):\n"
        "        os.dup2(os.open('/dev/null', os.O_RDWR), fd)\n"
        "    found = list(tracking.written())\n"
        "os._exit(100 + min(fds))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode > 102


# ---- files removed by a cleaner ------------------------------------------------------


class Held:
    """A keeper in this process, without a real session."""

    def __init__(self, place: Path) -> None:
        from pagescan.session.held_session import HeldSession

        self.place = place
        pid = os.getpid()
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(place / f"{pid}.sock"))
        ends, self.writable = os.pipe()
        self.fds = {
            "server": server.detach(),
            "lock": os.open(place / f"{pid}.lock", os.O_RDWR | os.O_CREAT, 0o600),
            "directory": os.open(place, os.O_RDONLY),
            "uffd": os.open(os.devnull, os.O_RDONLY),
            "pidfd": ends,
            "pagemap": os.open("/proc/self/pagemap", os.O_RDONLY),
        }
        self.keeper = HeldSession(self.fds, {"target": {"pid": pid}, "untracked": []})

    def close(self) -> None:
        self.keeper.server.close()
        self.keeper.selector.close()
        os.close(self.writable)
        for name, fd in self.fds.items():
            closed = name == "uffd" and self.keeper.ended  # by the keeper
            if name != "server" and not closed:
                os.close(fd)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    made.close()


def test_a_keeper_keeps_its_files_young(held: Held) -> None:
    """The keeper renews the files' times, by which cleaners of /tmp decide."""
    names = list(held.place.iterdir())
    assert len(names) == 2
    for path in names:
        os.utime(path, (1, 1))
    held.keeper.care()
    assert not held.keeper.ended
    assert all(path.stat().st_mtime > 1 for path in names)


@pytest.mark.parametrize("suffix", ["lock", "sock"])
def test_a_keeper_that_nobody_can_find_ends(held: Held, suffix: str) -> None:
    """Without its files it ends, because it would protect the target for ever."""
    (held.place / f"{os.getpid()}.{suffix}").unlink()
    held.keeper.care()
    assert held.keeper.ended


HASTY = f"""#!{sys.executable}
from pagescan.session import household, keeper

household._CARE = 0.5
keeper.main()
"""


def test_a_keeper_ends_soon_after_its_files(
    target: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It checks twice a second here; after that nothing is left in the target."""
    made = target("m=anon,pages=40,fill=1")
    script = tmp_path / "python"
    script.write_text(HASTY)
    script.chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(script))
        pagescan.start_session(made.pid)
    (listed,) = command("sessions", "--json").json()["sessions"]
    time.sleep(1.5)  # with its files it stays
    assert witness.registered(made.pid)
    for path in PLACE.glob(f"{made.pid}.*"):
        path.unlink()
    witness.wait_for(lambda: witness.registered(made.pid) == 0)
    witness.wait_for(lambda: os.waitpid(listed["keeper_pid"], os.WNOHANG)[0])
