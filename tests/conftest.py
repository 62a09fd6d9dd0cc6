"""Fixtures of all tests: the targets, the command, and the abilities of this machine.

--require=A,B turns skips for these needs into failures; --require=all turns every skip
into one.
"""

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import settings

from tests import machine, witness

# No test fails because the machine is busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

HERE = Path(__file__).parent
ROOTS_SESSIONS = "/run/pagescan"
PAGE = witness.PAGE
STRANGER = 61234
"""A uid that no user has."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --require and --accept."""
    parser.addoption("--accept", action="store_true", help="rewrite the golden files")
    parser.addoption("--require", default="", help="needs that must be met, or all")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; keep the tests away from the sessions of other users."""
    config.addinivalue_line("markers", "needs(*names): skip the test if one is missing")
    config.addinivalue_line(
        "markers", "switched(variable): run the test only where this variable is 1"
    )
    os.environ[RUN] = str(os.getpid())
    if os.geteuid() == 0:
        _have_sessions_of_our_own()


RUN = "PAGESCAN_TEST_RUN"
"""A variable in the environment of every process that the tests start."""

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000  # unshare(2), mount(2)


def _have_sessions_of_our_own() -> None:
    """Mount an empty session directory, for this process and its children only.

    So `disarm --all` cannot end a session of another person on this machine, and
    foreign sessions do not count here. If mounting is not allowed, the tests share the
    directory.
    """
    os.makedirs(ROOTS_SESSIONS, 0o700, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    target = ROOTS_SESSIONS.encode()
    if libc.unshare(_CLONE_NEWNS) == 0:
        libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
        libc.mount(b"tests", target, b"tmpfs", 0, b"mode=700")


# ---- what this machine can do ------------------------------------------------------


def _tracking() -> str | None:
    result = command("doctor", "--json")
    return None if result.code == 0 else "doctor says that nothing can be tracked"


def _tool(name: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"{name} is not installed"


def _postgres() -> str | None:
    if os.geteuid():
        return "only root can become the user of a database"
    return None if machine.postgres() else "PostgreSQL is not installed"


def _thp() -> str | None:
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not modes.exists() or "[never]" in modes.read_text():
        return "transparent huge pages are off"
    return None


def _can_set(path: str) -> Callable[[], str | None]:
    return lambda: None if os.access(path, os.W_OK) else f"{path} cannot be written"


def _swap() -> str | None:
    if os.geteuid() or not shutil.which("mkswap") or not shutil.which("swapon"):
        return "swap cannot be added by this user"
    return None


def _io_uring() -> str | None:
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    off = not switch.exists() or switch.read_text().strip() == "2"
    return "io_uring is not available" if off else None


def _compiles_32_bit() -> str | None:
    words = ["cc", "-m32", "-nostdlib", "-static", "-x", "c", "-o", os.devnull, "-"]
    text = b"void _start(void) { for (;;) ; }"
    done = subprocess.run(words, input=text, capture_output=True, check=False)
    return "cc has no -m32" if done.returncode else None


@cache
def python_of_all() -> str | None:
    """Return a Python of this version that another user may run, or None."""
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        version = "import sys; sys.exit(sys.version_info[:2] != {})"
        with contextlib.suppress(OSError):
            words = [program, "-c", version.format(sys.version_info[:2])]
            if not subprocess.run(
                words, user=STRANGER, cwd="/", check=False
            ).returncode:
                return program
    return None


SANITIZED = "ASAN_OPTIONS" in os.environ
"""Whether `make asan` runs the tests: memory is shadowed, and everything is slower."""


def _module(name: str) -> Callable[[], str | None]:
    there = importlib.util.find_spec(name) is not None
    return lambda: None if there else f"{name} is not installed (make dev has it)"


def _stranger() -> str | None:
    if SANITIZED:
        return "another user cannot read the sanitizer libraries"
    if os.geteuid():
        return "this user is not root, and cannot become another user"
    return None if python_of_all() else "another user cannot run this Python"


def run_as_stranger(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the Python of all users as another user, with this tree's pagescan."""
    places = [str(HERE.parent), *filter(None, map(str, sys.path))]
    return subprocess.run(
        [str(python_of_all()), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )


PROBES: dict[str, Callable[[], str | None]] = {
    "tracking": _tracking,
    "stranger": _stranger,
    "root": lambda: None if os.geteuid() == 0 else "this user is not root",
    "redis": _tool("redis-server"),
    "tmux": _tool("tmux"),
    "mandoc": _tool("mandoc"),
    "bash": _tool("bash"),
    "zsh": _tool("zsh"),
    "fish": _tool("fish"),
    "thp": _thp,
    "unshare": _tool("unshare"),
    "swap": _swap,
    "folios": _can_set("/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled"),
    "hugetlb": _can_set("/proc/sys/vm/nr_hugepages"),
    "max-map-count": _can_set("/proc/sys/vm/max_map_count"),
    "ksm": _can_set("/sys/kernel/mm/ksm/run"),
    "fuse": lambda: None if os.path.exists("/dev/fuse") else "there is no FUSE",
    "cgroup-cpu": lambda: machine.has_controller("cpu"),
    "cgroup-freezer": lambda: machine.has_controller("freezer"),
    "cgroup-memory": lambda: machine.has_controller("memory"),
    "io_uring": _io_uring,
    "java": _tool("javac"),
    "go": _tool("go"),
    "node": _tool("node"),
    "chromium": _tool("chromium"),
    "firefox": _tool("firefox-esr"),
    "jcmd": _tool("jcmd"),
    "npm": _tool("npm"),
    "rustc": _tool("rustc"),
    "c++": _tool("c++"),
    "c++filt": _tool("c++filt"),
    "symbolic": _module("symbolic"),
    "busybox": _tool("busybox"),
    "cc-m32": _compiles_32_bit,
    "numpy": _module("numpy"),
    "pandas": _module("pandas"),
    "polars": _module("polars"),
    "pyarrow": _module("pyarrow"),
    "duckdb": _module("duckdb"),
    "pyspark": _module("pyspark"),
    "mypy": _module("mypy"),
    "prometheus_client": _module("prometheus_client"),
    "yaml": _module("yaml"),
    "bcrypt": _module("bcrypt"),
    "openssl": _tool("openssl"),
    "prometheus": _tool("prometheus"),
    "promtool": _tool("promtool"),
    "postgres": _postgres,
    "nginx": _tool("nginx"),
    "gunicorn": _tool("gunicorn"),
    "systemd-analyze": _tool("systemd-analyze"),
}


@cache
def missing(need: str) -> str | None:
    """Return why a need is not met here, or None."""
    return PROBES[need]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met here, or fail it if they are required."""
    required = str(item.config.getoption("--require")).split(",")
    for marker in item.iter_markers("needs"):
        for need in marker.args:
            reason = missing(need)
            if reason and (need in required or "all" in required):
                pytest.fail(f"{need} is required, and {reason}", pytrace=False)
            if reason:
                pytest.skip(reason)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Deselect long tests that are not switched on: nothing is missing for them."""
    off = [
        item
        for item in items
        for marker in item.iter_markers("switched")
        if os.environ.get(marker.args[0]) != "1"
    ]
    if off:
        config.hook.pytest_deselected(items=off)
        items[:] = [item for item in items if item not in off]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count skips for the closing line."""
    if report.skipped and isinstance(report.longrepr, tuple):
        SKIPPED.append(str(report.longrepr[2]))


SKIPPED: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were left out, and why."""
    if SKIPPED:
        reasons = ", ".join(sorted(set(SKIPPED)))
        terminalreporter.write_line(f"{len(SKIPPED)} tests left out: {reasons}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With --require=all, make every skip fail, also one that a test makes itself."""
    if session.config.getoption("--require") == "all" and SKIPPED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# ---- the command -------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """The output and the exit code of one run of the command."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return the document on stdout, checked against the schema."""
        return checked(self.stdout)

    def error(self) -> Any:
        """Return the error document on stderr, checked against the schema."""
        return checked(self.stderr.splitlines()[-1])


@cache
def _validator() -> Any:
    schema = json.loads((HERE.parent / "pagescan/schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def checked(text: str) -> Any:
    """Parse a document and check it against the schema."""
    document = json.loads(text)
    errors = [error.message for error in _validator().iter_errors(document)]
    assert errors == [], (errors, text[:2000])
    return document


def command(
    *words: object,
    env: dict[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    timeout: float = 120,
) -> Result:
    """Run `pagescan WORDS…` and return its output and exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "pagescan", *map(str, words)],
        stdin=stdin,
        capture_output=True,
        timeout=timeout * witness.PATIENCE,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Result(
        done.returncode,
        done.stdout.decode("utf-8", "surrogateescape"),
        done.stderr.decode("utf-8", "surrogateescape"),
    )


@pytest.fixture
def pagescan() -> Callable[..., Result]:
    """Return the function that runs the command."""
    return command


# ---- targets -----------------------------------------------------------------------


@dataclass
class Target:
    """A process that obeys commands: tests/targets/mkmem.c."""

    process: subprocess.Popen[str]
    pid: int
    ranges: dict[str, tuple[int, int]]
    expected: dict[str, set[int]] = field(default_factory=dict)
    own_userfaultfds: int = 0
    """The ranges that the target made itself."""

    def tell(self, line: str) -> str:
        """Give the target a command; return the words after "ok"."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer.startswith("ok"), (line, answer)
        return answer[3:]

    def where(self, name: str) -> tuple[int, int]:
        """Ask the target where a range is now, and remember it."""
        start, end = self.tell(f"range {name}").split()
        self.ranges[name] = int(start), int(end)
        return self.ranges[name]

    def write(self, name: str, pages: set[int]) -> None:
        """Make the target store to pages, and remember them as written."""
        if pages:
            self.tell(f"write {name} {runs(pages)}")
        self.expected.setdefault(name, set()).update(pages)

    def pages(self, document: dict[str, Any], name: str) -> set[int]:
        """Return the pages of a range that are in a result."""
        low, high = self.ranges[name]
        found = set()
        for region in document["regions"]:
            start, end = int(region["start"], 16), int(region["end"], 16)
            for address in range(max(start, low), min(end, high), PAGE):
                found.add((address - low) // PAGE)
        return found


def runs(pages: set[int]) -> str:
    """Return pages in the notation of the targets: "0,3-7"."""
    text: list[list[int]] = []
    for page in sorted(pages):
        if text and text[-1][1] == page - 1:
            text[-1][1] = page
        else:
            text.append([page, page])
    return ",".join(f"{low}-{high}" for low, high in text)


@pytest.fixture(scope="session")
def mkmem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target program, built once."""
    program = tmp_path_factory.mktemp("targets") / "mkmem"
    source = HERE / "targets/mkmem.c"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-o", str(program), str(source), "-pthread"], check=True
    )
    program.parent.chmod(0o755)
    program.parent.parent.chmod(0o755)
    return program


@pytest.fixture
def target(mkmem: Path) -> Iterator[Callable[..., Target]]:
    """Start targets; assert at the end that each is alive, untraced and unharmed."""
    started: list[tuple[Target, dict[str, str]]] = []

    def start(*words: str) -> Target:
        process = subprocess.Popen(
            [str(mkmem), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line and process.wait() == 77:
            pytest.skip(f"this machine has no {words}")
        facts = json.loads(line)
        ranges = {name: (low, high) for name, (low, high) in facts["ranges"].items()}
        made = Target(process, facts["pid"], ranges)
        started.append((made, witness.descriptors(made.pid)))
        return made

    yield start
    for made, before in started:
        if made.process.poll() is None:
            assert witness.status(made.pid, "TracerPid") == "0"
            after = witness.descriptors(made.pid)
            left = [
                name
                for name, what in after.items()
                if "userfaultfd" in what and name not in before
            ]
            assert len(left) == made.own_userfaultfds
            if session_files():
                command("disarm", made.pid, "-q")
            made.tell("quit")
        assert made.process.wait(10 * witness.PATIENCE) == 0
        for stream in (made.process.stdin, made.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def armed(target: Callable[..., Target]) -> Callable[..., Target]:
    """Start a target and arm it."""

    def start(*words: str, options: tuple[str, ...] = ()) -> Target:
        made = target(*words)
        result = command("arm", made.pid, *options)
        assert result.code == 0, result.stderr
        return made

    return start


@pytest.fixture(autouse=True)
def no_session_left() -> Iterator[None]:
    """Assert that a test leaves no session that it began."""
    before = session_files()
    yield
    # A keeper ends a moment after its target.
    witness.wait_for(
        lambda: not {path for path in session_files() - before if _is_ours(path)}
    )


@pytest.fixture(autouse=True)
def no_userfaultfd_left() -> Iterator[None]:
    """Assert that a test leaves no userfaultfd here, but for that of WriteWatch."""
    before = max(1, _userfaultfds())
    yield
    if _userfaultfds() > before:
        gc.collect()
    assert _userfaultfds() <= before, "the test leaves a userfaultfd"


def _userfaultfds() -> int:
    held = witness.descriptors(os.getpid()).values()
    return sum("userfaultfd" in one for one in held)


def session_files() -> set[str]:
    """Return the files in the session directories of this user."""
    uid = os.geteuid()
    places = (
        [ROOTS_SESSIONS]
        if uid == 0
        else [
            os.environ.get("XDG_RUNTIME_DIR", "") + "/pagescan",
            f"/run/user/{uid}/pagescan",
            f"/tmp/pagescan-{uid}",
        ]
    )
    found: set[str] = set()
    for place in places:
        if os.path.isdir(place):
            found |= {f"{place}/{name}" for name in os.listdir(place)}
    return found


def _is_ours(path: str) -> bool:
    """Whether a session is ours: its target was not started by another person."""
    pid = os.path.basename(path).partition(".")[0]
    if pid == str(os.getpid()):
        return True
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return f"{RUN}={os.getpid()}".encode() in environment
    # a dead target shows nothing; sessions of root are all ours
    return os.geteuid() == 0
