"""How `pagescan exporter` serves: TLS, passwords, sockets, a file, systemd, rights."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pagescan.exporter.listening import listening
from pagescan.exporter.server import Server
from pagescan.exporter.web_config import read
from pagescan.model.errors import PagescanError
from tests import witness
from tests.conftest import STRANGER, Target, python_of_all
from tests.exporting import exporting, parsed, value, values
from tests.machine import tmpfs

if TYPE_CHECKING:
    from prometheus_client.core import Metric

pytestmark = pytest.mark.needs("prometheus_client", "yaml", "bcrypt")

Start = Callable[..., Target]
SHARE = Path(__file__).parents[2] / "share"
PASSWORD = "correct horse"
WRONG = {"Authorization": "Basic " + b64encode(b"ann:wrong").decode()}
RIGHT = {"Authorization": "Basic " + b64encode(f"ann:{PASSWORD}".encode()).decode()}


def hashed(password: str) -> str:
    """Return a hash as htpasswd makes it, with few rounds."""
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def certificate(folder: Path, name: str) -> Path:
    """Make a certificate for 127.0.0.1 and its key; return the path of the first."""
    path = folder / f"{name}.crt"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(path)]
    subprocess.run([*words, *files], check=True, capture_output=True)
    return path


def fetch(port: int, trusted: Path, client: Path | None = None) -> str:
    """Scrape over TLS, and trust one certificate alone."""
    context = ssl.create_default_context(cafile=str(trusted))
    if client is not None:
        context.load_cert_chain(client, client.with_suffix(".key"))
    url = f"https://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, context=context, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


# ---- TLS and passwords -------------------------------------------------------------


def test_passwords(target: Start, tmp_path: Path) -> None:
    """Only a user of the web config is answered; headers are added to each answer."""
    config = tmp_path / "web.yml"
    config.write_text(
        f"basic_auth_users:\n  ann: {hashed(PASSWORD)}\n"
        "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"
    )
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid, "--web-config", config) as exporter:
        for headers in ({}, WRONG, {"Authorization": "Basic ???"}):
            for path in ("/metrics", "/", "/-/healthy", "/other"):
                answer = exporter.get(path, headers)
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
                assert b"pagescan_" not in answer.read()
        nobody = b64encode(b"bob:" + PASSWORD.encode()).decode()
        assert exporter.get(headers={"Authorization": f"Basic {nobody}"}).status == 401
        assert exporter.get(headers={"Authorization": "Basic Og=="}).status == 401
        for _ in range(2):  # the second time from memory
            answer = exporter.get(headers=RIGHT)
            assert answer.status == 200
            assert answer.headers["X-Frame-Options"] == "deny"
        assert exporter.get(headers=WRONG).status == 401


def test_web_config_is_read_again(target: Start, tmp_path: Path) -> None:
    """A changed password counts at once; a file that is wrong changes nothing."""
    config = tmp_path / "web.yml"
    config.write_text(f"basic_auth_users: {{ann: {hashed('old')}}}\n")
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid, "--web-config", config) as exporter:
        assert exporter.get(headers=RIGHT).status == 401
        config.write_text(f"basic_auth_users: {{ann: {hashed(PASSWORD)}}}\n# new\n")
        assert exporter.get(headers=RIGHT).status == 200
        for wrong in (
            "basic_auth_users: [\n",
            "tls_server_config: {cert_file: a, key_file: b, min_version: [TLS12]}\n",
        ):
            config.write_text(wrong)
            assert exporter.get(headers=RIGHT).status == 200
            assert exporter.get().status == 401
        exporter.wait_until_said("min_version cannot be")
        exporter.wait_until_said("the earlier web config stays in force")


@pytest.mark.needs("openssl")
def test_tls(target: Start, tmp_path: Path) -> None:
    """Encrypted with the certificate of the web config, and with nothing else."""
    config = tmp_path / "web.yml"
    config.write_text("tls_server_config: {cert_file: one.crt, key_file: one.key}\n")
    one, other = certificate(tmp_path, "one"), certificate(tmp_path, "other")
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid, "--web-config", config) as exporter:
        assert "pagescan_up 1.0" in fetch(exporter.port, one)
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(exporter.port, other)
        with socket.create_connection(("127.0.0.1", exporter.port)) as plain:
            plain.settimeout(30)
            plain.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"pagescan_" not in plain.recv(4096)
        # A renewed certificate counts at the next connection.
        one.write_bytes(other.read_bytes())
        one.with_suffix(".key").write_bytes(other.with_suffix(".key").read_bytes())
        assert "pagescan_up 1.0" in fetch(exporter.port, other)


class Late:
    """A collector that has no answer before the server shuts the connection."""

    def __init__(self, port: int) -> None:
        """Remember the port of the server, which is in this process."""
        self.asked = threading.Event()
        self._port = port

    def collect(self) -> Iterator["Metric"]:
        """Return one metric, as a collector of prometheus_client does."""
        from prometheus_client.core import GaugeMetricFamily

        with accepted(self._port) as connection:
            connection.setblocking(False)
            self.asked.set()
            witness.wait_for(lambda: is_shut(connection), 60)
        yield GaugeMetricFamily("late", "A number.", value=42)


def accepted(port: int) -> socket.socket:
    """Return the connection that a server in this process has accepted."""
    for name, what in witness.descriptors(os.getpid()).items():
        if not what.startswith("socket:"):  # a dup of it would have no owner
            continue
        with contextlib.suppress(OSError):
            connection = socket.socket(fileno=os.dup(int(name)))
            with contextlib.suppress(OSError):
                connection.getpeername()
                if connection.getsockname()[1:2] == (port,):
                    return connection
            connection.close()
    raise AssertionError("no connection was accepted")


def is_shut(connection: socket.socket) -> bool:
    """Whether nothing more can arrive on a socket."""
    with contextlib.suppress(BlockingIOError):
        return connection.recv(1, socket.MSG_PEEK) == b""
    return False


@pytest.mark.needs("openssl")
def test_the_end_sends_no_answer_without_tls(tmp_path: Path) -> None:
    """A scrape that is under way at the end gets its answer, and encrypted."""
    from prometheus_client import CollectorRegistry

    trusted, config = certificate(tmp_path, "one"), tmp_path / "web.yml"
    config.write_text("tls_server_config: {cert_file: one.crt, key_file: one.key}\n")
    registry = CollectorRegistry()
    with ThreadPoolExecutor() as pool, listening("127.0.0.1:0") as sock:
        late = Late(sock.getsockname()[1])
        registry.register(late)
        with Server(sock, registry, read(str(config))):
            answer = pool.submit(fetch, sock.getsockname()[1], trusted)
            assert late.asked.wait(60)
        assert "late 42.0" in answer.result(60)


@pytest.mark.needs("openssl")
def test_client_certificates(target: Start, tmp_path: Path) -> None:
    """Without one that the authority has signed there is no answer."""
    server, client = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    stranger = certificate(tmp_path, "stranger")
    config = tmp_path / "web.yml"
    config.write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        "  client_ca_file: client.crt\n  min_version: TLS13\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
    )
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid, "--web-config", config) as exporter:
        assert "pagescan_up 1.0" in fetch(exporter.port, server, client)
        for wrong in (None, stranger):
            with pytest.raises((urllib.error.URLError, OSError)):
                fetch(exporter.port, server, wrong)


# ---- sockets -----------------------------------------------------------------------


def ask(path: Path) -> str:
    """Scrape over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        pieces = iter(lambda: client.recv(1 << 16), b"")
        return b"".join(pieces).decode()


def test_unix_socket(target: Start, tmp_path: Path) -> None:
    """For owner and group alone; one that a killed exporter left is replaced."""
    path = tmp_path / "socket"
    made = target("m=anon,pages=1")
    words = ("--tree", made.pid)
    with exporting(*words, listen=f"unix:{path}") as exporter:
        assert path.stat().st_mode & 0o777 == 0o660
        assert "pagescan_up 1.0" in ask(path)
        assert exporter.end(signal.SIGKILL) == -signal.SIGKILL
    assert path.is_socket()
    with exporting(*words, listen=f"unix:{path}"):
        assert "pagescan_up 1.0" in ask(path)
    assert not path.exists()


def test_socket_of_systemd(target: Start) -> None:
    """The descriptor that systemd passes is used as it is; source: sd_listen_fds(3)."""
    made = target("m=anon,pages=1")
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        script = (
            f"exec 3<&{passed.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$;"
            f" exec {sys.executable} -m pagescan exporter --listen systemd"
            f" --tree {made.pid}"
        )
        process = subprocess.Popen(
            ["bash", "-c", script],
            pass_fds=[passed.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert f":{passed.getsockname()[1]};" in process.stderr.readline()
        url = f"http://127.0.0.1:{passed.getsockname()[1]}/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"pagescan_up 1.0" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stderr.close()


def test_only_loopback_unless_told(target: Start) -> None:
    """A server that other machines reach, without a password, says so."""
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid) as exporter:
        assert not [line for line in exporter.said if "other machines" in line]
    with exporting("--tree", made.pid, listen=":0") as exporter:
        exporter.wait_until_said("other machines may read the metrics")
        assert exporter.get().status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_its_normal_end(target: Start, number: int) -> None:
    """The exit code is 0, soon, and nothing stays in the target."""
    made = target("m=anon,pages=100,fill=1")
    with exporting("--tree", made.pid, "--track") as exporter:
        witness.wait_for(lambda: witness.registered(made.pid))
        assert exporter.end(number) == 0
    assert witness.registered(made.pid) == 0


# ---- the file ----------------------------------------------------------------------


@pytest.mark.needs("promtool")
def test_textfile(target: Start, tmp_path: Path) -> None:
    """A reader sees whole files only, readable by all, and none after the end."""
    file = tmp_path / "pagescan.prom"
    made = target("m=anon,pages=100,fill=1")
    words = ("--tree", made.pid, "--textfile", file, "-i", "0.05", "--track")
    with exporting(*words):
        witness.wait_for(lambda: file.exists() and file.stat().st_size)
        seen: set[float] = set()
        samples, text = parsed(""), ""
        end = time.monotonic() + 60 * witness.PATIENCE
        while len(seen) < 20 and time.monotonic() < end:
            text = file.read_text()
            samples = parsed(text)
            assert value(samples, "pagescan_up") == 1
            assert text.endswith("\n")
            seen.add(value(samples, "pagescan_ticks_total"))
        assert len(seen) == 20
        assert file.stat().st_mode & 0o777 == 0o644
        names = {name for name, _ in samples}
        assert not [name for name in names if not name.startswith("pagescan_")]
        check = ["promtool", "check", "metrics"]
        done = subprocess.run(
            check, input=text, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("root")
def test_textfile_on_a_full_disk(target: Start, tmp_path: Path) -> None:
    """It goes on, says so once, and leaves no old numbers."""
    made = target("m=anon,pages=1")
    with tmpfs(tmp_path, "size=64k"):
        file, filling = tmp_path / "a.prom", tmp_path / "filling"
        with exporting("--tree", made.pid, "--textfile", file, "-i", "0.05") as one:
            witness.wait_for(lambda: file.exists() and file.stat().st_size)

            def filled() -> bool:  # the exporter's own file makes room for another
                with contextlib.suppress(OSError), filling.open("ab", 0) as all_of_it:
                    while True:
                        all_of_it.write(bytes(4096))
                return any("cannot write" in line for line in one.said)

            witness.wait_for(filled)
            assert "cannot write" in one.said[-1]
            assert "a.prom: no space left on device" in one.said[-1]
            assert not file.exists()
            filling.unlink()
            one.wait_until_said("a.prom is written again")
            assert parsed(file.read_text())
            assert len([line for line in one.said if "cannot write" in line]) == 1
        assert list(tmp_path.iterdir()) == []


def test_textfile_that_barely_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file is removed where there is no room for two."""
    import prometheus_client

    from pagescan.exporter.textfile import TextFile

    file = tmp_path / "a.prom"
    said: list[str] = []
    one = TextFile(str(file), prometheus_client.CollectorRegistry())
    file.write_text("old\n")
    replace = one._replace

    def full(text: bytes) -> None:
        if file.exists():
            raise PagescanError("full")
        replace(text)

    monkeypatch.setattr(one, "_replace", full)
    one.update(said.append)
    assert (file.read_bytes(), said) == (b"", [])


# ---- rights ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def for_all() -> Iterator[str]:
    """A folder with pagescan and what it imports, which every user may read."""
    site = Path(sysconfig.get_path("purelib"))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(SHARE.parent / "pagescan", f"{folder}/pagescan")
        for name in ("click", "prometheus_client", "cffi"):
            shutil.copytree(site / name, f"{folder}/{name}")
        for file in site.glob("_cffi_backend*.so"):
            shutil.copy(file, folder)
        yield folder


def _serves(words: list[str], folder: str, caps: str) -> subprocess.Popen[str]:
    """Start an exporter as another user, with some capabilities."""
    user = [f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    code = "import sys, pagescan.cli; sys.exit(pagescan.cli.run())"
    return subprocess.Popen(
        [
            *("setpriv", *user, f"--inh-caps={caps}", f"--ambient-caps={caps}"),
            *(str(python_of_all()), "-c", code, "exporter", *words),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": ""},
        cwd=folder,
    )


RIGHTS = [
    ("+sys_ptrace,+dac_read_search", False),
    ("+sys_ptrace,+dac_override", True),
    ("+sys_ptrace", False),
    ("+dac_read_search", False),
]


@pytest.mark.needs("root", "stranger")
@pytest.mark.parametrize(("caps", "track"), RIGHTS)
def test_two_capabilities_are_enough(
    target: Start, for_all: str, caps: str, track: bool
) -> None:
    """Without root, two capabilities read root's processes, or track them too.

    With one of them the process is unread, and `pagescan_up` is 0.
    """
    made = target("m=shmem,pages=100,fill=1")
    up = int("," in caps)
    words = ["--listen", "127.0.0.1:0", "--tree", str(made.pid)]
    words += ["--track", "-i", "0.2"] if track else []
    process = _serves(words, for_all, caps)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        port = line.partition("127.0.0.1:")[2].partition(";")[0]
        assert port, line + process.stderr.read()

        def found(name: str) -> float:
            time.sleep(1.05)
            url = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url, timeout=60) as answer:
                return value(parsed(answer.read().decode()), name)

        assert found("pagescan_up") == up
        assert found("pagescan_unread_processes") == 1 - up
        if track:
            witness.wait_for(lambda: found("pagescan_ticks_total") > 1)
            assert witness.registered(made.pid)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        process.stderr.close()


def test_no_process_yet() -> None:
    """It is said, and a process that comes later is there."""
    name = f"pgs{os.getpid() % 100000}"
    with exporting("--match", f"^{name}$") as exporter:
        exporter.wait_until_said("no process is selected now")
        samples = exporter.scrape()
        assert not values(samples, "pagescan_processes")
        assert value(samples, "pagescan_up") == 1
        words = ["sh", "-c", f"echo {name} >/proc/$$/comm; echo; read x"]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            found = exporter.scrape()
            assert value(found, "pagescan_processes", group=f"^{name}$") == 1
            process.communicate()


# ---- strangers ---------------------------------------------------------------------


def asked(port: int, *pieces: bytes, over: bool = False) -> bytes:
    """Send a request in pieces, and with `over` no more; return the answer."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(60)
        answer = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces:
                client.sendall(piece)
            if over:
                client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 16):
                answer += piece
    return answer


def test_odd_requests(target: Start) -> None:
    """Each odd request has an answer or none, and the exporter goes on."""
    made = target("m=anon,pages=1")
    get = b"GET /metrics HTTP/1.1\r\n"
    with exporting("--tree", made.pid) as exporter:
        for text, status in (
            (b"GET /metrics HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 "),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.0 200 "),
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.0 501 "),
            (b"GET /../metrics HTTP/1.1\r\n\r\n", b"HTTP/1.0 404 "),
            (get + b"Accept: \xff;q=z\r\n\r\n", b"HTTP/1.0 200 "),
            (get + b"X: y\r\n" * 150 + b"\r\n", b"HTTP/1.0 431 "),
            (get + b"X: " + b"y" * 40_000 + b"\r\n\r\n", b"HTTP/1.0 431 "),
        ):
            answer = asked(exporter.port, text)
            # Its end may overtake an answer while the request is not read wholly.
            refused = status.endswith(b" 431 ")
            assert answer.startswith(status) or (refused and not answer), text[:60]
        for text in (b"", b"GET /met", get, get + b"Host: x\r\n", get + b"Host"):
            assert asked(exporter.port, text, over=True) == b""
        assert exporter.get().status == 200


def test_many_silent_connections(target: Start) -> None:
    """Silent connections keep no scraper away: the oldest one makes room."""
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid) as exporter, contextlib.ExitStack() as undo:
        place = ("127.0.0.1", exporter.port)
        for _ in range(200):
            undo.enter_context(socket.create_connection(place))

        def is_answered() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return exporter.get().status == 200
            return False

        witness.wait_for(is_answered, 30)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate, GZIP;q=0.5", "gzip"),
        ("identity, gzip; q=0", None),
        ("gzip;q=0.000", None),
        ("notgzip", None),
        ("", None),
    ],
)
def test_encodings(target: Start, header: str, encoding: str | None) -> None:
    """An answer is compressed only for a client that takes it."""
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid) as exporter:
        answer = exporter.get(headers={"Accept-Encoding": header})
        assert answer.headers["Content-Encoding"] == encoding


def test_no_thread_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that gets no thread is closed; the next one is served."""
    from prometheus_client import CollectorRegistry

    begin, left, said = threading.Thread.start, ["once"], list[str]()

    def start(self: threading.Thread) -> None:
        if left and "_serve" in repr(self._target):  # type: ignore[attr-defined]
            left.pop()
            raise RuntimeError("can't start new thread")
        begin(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with listening("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        with Server(sock, CollectorRegistry(), say=said.append):
            assert asked(port, b"GET / HTTP/1.0\r\n\r\n") == b""
            answer = asked(port, b"GET / HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert said == ["a connection was not accepted: can't start new thread"]
