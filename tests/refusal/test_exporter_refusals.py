"""What `pagescan exporter` refuses, and with which exit code and hint."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pagescan.exporter.listening import listening
from pagescan.exporter.web_config import read
from pagescan.model.errors import AccessDeniedError, PagescanError, UsageError
from pagescan.model.extras import install_command
from tests.conftest import STRANGER, Result, command

pytestmark = pytest.mark.needs("prometheus_client", "yaml", "bcrypt")

HASH = "$2b$04$e1XGTvYgOhdbx8wAYwQeWeCg5P3bI/AQZAsYvVdBK0bq.5CYvDB3m"


def refused(*words: object) -> Result:
    """Run the exporter, which must not begin to serve."""
    return command("exporter", *words)


USAGE = [
    (("--match", "("), "regular expression"),
    (("--cgroup", "relative"), "malformed cgroup"),
    (("--unit", "a/b"), "malformed unit"),
    (("--container", "web"), "malformed container id"),
    (("--listen", "nowhere"), "malformed address"),
    (("--listen", "127.0.0.1:99999"), "malformed address"),
    (("--listen", "unix:"), "malformed address"),
    (("--listen", f"unix:/tmp/{'x' * 120}"), "malformed address"),
    (("--listen", "systemd"), "has not passed"),
    (("--textfile", "/tmp/x.prom", "--listen", ":1"), "exclude each other"),
    (("--textfile", "/tmp/x.prom", "--web-config", "w"), "exclude each other"),
    (("--textfile", "/tmp/metrics.txt"), "*.prom"),
    (("--budget", "2", "--match", "x"), "without --track"),
    (("--track",), "select some"),
    (("-i", "0"), "not a time above zero"),
    (("--by", "pid"), "'pid'"),
]


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_usage(words: tuple[str, ...], message: str) -> None:
    result = refused(*words)
    assert result.code == 2
    assert message in result.stderr


def test_tree_of_no_process() -> None:
    assert refused("--tree", 4194303).code == 3


@pytest.mark.parametrize("words", [("maps",), ("watch", "-n1"), ("exporter",)])
def test_tree_of_a_kernel_thread(words: tuple[str, ...]) -> None:
    """It lives, and has no memory: the message does not say that it has ended."""
    result = command(*words, "--tree", 2)
    assert result.code == 3
    assert "2 (kthreadd) is a kernel thread: it has no memory" in result.stderr
    assert "ended" not in result.stderr


def test_address_in_use() -> None:
    """The message names the address, the hint the option."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = refused("--listen", f"127.0.0.1:{port}")
    assert result.code == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in result.stderr
    assert "hint: another program listens there" in result.stderr


def test_address_of_another_machine() -> None:
    assert "cannot listen on 192.0.2.1" in refused("--listen", "192.0.2.1:9842").stderr


def test_path_in_use(tmp_path: Path) -> None:
    """A living server keeps its path, and so does a file that is no socket."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        result = refused("--listen", f"unix:{path}")
        assert result.code == 1
        assert "another program listens there" in result.stderr
        assert path.is_socket()
    plain = tmp_path / "plain"
    plain.write_text("kept")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for other_file in (plain, link, tmp_path):
        result = refused("--listen", f"unix:{other_file}")
        assert result.code == 1
        said = f"cannot listen on {other_file}: it exists, and is no socket"
        assert said in result.stderr
        assert "another program" not in result.stderr
    assert plain.read_text() == "kept"


@pytest.mark.needs("root")
def test_forbidden_port_and_path(tmp_path: Path) -> None:
    """Without rights the exit code is 4."""
    floor = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    addresses = [f"unix:{tmp_path}/socket"]
    if floor > 80:
        addresses.append("127.0.0.1:80")
    socket.getaddrinfo("127.0.0.1", 80)  # loads what the stranger may not read
    os.seteuid(STRANGER)
    try:
        for address in addresses:
            with pytest.raises(AccessDeniedError, match="cannot listen on") as error:
                listening(address).__enter__()
            assert error.value.hint
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("first", "listens"), [("192.0.2.1", True), ("127.0.0.1", False)]
)
def test_name_with_two_addresses(
    first: str, monkeypatch: pytest.MonkeyPatch, *, listens: bool
) -> None:
    """An address that this machine has not is passed over; one in use is refused."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        rows = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in (first, "127.0.0.2")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
        if listens:
            with listening(f"name:{port}") as sock:
                assert sock.getsockname() == ("127.0.0.2", port)
            return
        with pytest.raises(PagescanError, match=f"name:{port}: address already in use"):
            listening(f"name:{port}").__enter__()


def test_textfile_that_cannot_be_written(tmp_path: Path) -> None:
    """It is refused before anything is read, with a remedy."""
    result = refused("--textfile", tmp_path / "missing/x.prom")
    assert result.code == 1
    assert "cannot write" in result.stderr
    assert "hint: its folder must exist" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["prometheus_client", "yaml", "bcrypt"])
def test_missing_extra(package: str, tmp_path: Path) -> None:
    """The hint is the command that installs it."""
    config = tmp_path / "web.yml"
    config.write_text(f"basic_auth_users: {{ann: {HASH}}}\n")
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from pagescan.cli import run\n"
        f"sys.exit(run(['exporter', '--web-config', {str(config)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"needs {package}" in done.stderr
    assert f"hint: {install_command('exporter')}" in done.stderr


BAD = [
    ("tls: {}", "unknown setting in the file: tls"),
    ("- a\n- b\n", "the file is not a mapping"),
    ("basic_auth_users: [ann]\n", "basic_auth_users is not a mapping"),
    ("basic_auth_users: {ann: secret}\n", "no bcrypt hash"),
    ("basic_auth_users: {ann: [", "line 1"),
    ("http_server_config: {headers: {X-Other: a}}\n", "unknown setting in headers"),
    ('http_server_config: {headers: {X-Frame-Options: "a\\nb: c"}}\n', "cannot be"),
    ("http_server_config: {headers: {X-Frame-Options: \u4e2d}}\n", "cannot be"),
    ("tls_server_config: {cert_file: a}\n", "needs cert_file and key_file"),
    ("tls_server_config: {cipher_suites: [A]}\n", "cannot follow: cipher_suites"),
    (
        "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}\n",
        "min_version cannot be 'TLS10'",
    ),
    (
        "tls_server_config: {cert_file: a, key_file: b, min_version: TLS13,"
        " max_version: TLS12}\n",
        "min_version is above max_version",
    ),
    (
        "tls_server_config: {cert_file: a, key_file: b, min_version: [TLS12]}\n",
        "min_version cannot be",
    ),
    ("tls_server_config: {cert_file: [a], key_file: b}\n", "cert_file cannot be"),
    ('tls_server_config: {cert_file: "a\\0b", key_file: b}\n', "cert_file cannot be"),
    ("http_server_config: {headers: {X-Frame-Options: null}}\n", "cannot be None"),
    ("http_server_config: {headers: {X-Frame-Options: [a]}}\n", "cannot be"),
    ("basic_auth_users: {ann: 2001-13-45}\n", "month must be in"),
    ("basic_auth_users: {ann: !!int x}\n", "invalid literal"),
    ('basic_auth_users: {ann: "\\ud800"}\n', "no bcrypt hash"),
    (
        f"basic_auth_users: {{ann: {HASH}}}\nbasic_auth_users: {{}}\n",
        "line 2: basic_auth_users is repeated",
    ),
    (f"basic_auth_users:\n  ann: {HASH}\n  ann: {HASH}\n", "ann is repeated"),
    ("[" * 3000, "nested too deeply"),
    ("basic_auth_users: &all {ann: *all}\n", "nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_malformed_web_config(text: str, message: str, tmp_path: Path) -> None:
    """A setting that is unknown, or that cannot be followed, is never ignored."""
    config = tmp_path / "web.yml"
    config.write_text(text)
    with pytest.raises(UsageError, match=message):
        read(str(config))


def test_web_config_that_cannot_be_read(tmp_path: Path) -> None:
    result = refused("--web-config", tmp_path / "none.yml")
    assert result.code == 1
    assert "none.yml: no such file or directory" in result.stderr


def test_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    """The message names the file, which is beside the web config."""
    config = tmp_path / "web.yml"
    config.write_text("tls_server_config: {cert_file: a.crt, key_file: a.key}\n")
    result = refused("--web-config", config)
    assert result.code == 1
    assert f"cannot read {tmp_path}/a.crt: no such file" in result.stderr
    (tmp_path / "a.crt").write_text("no certificate")
    (tmp_path / "a.key").write_text("no key")
    result = refused("--web-config", config)
    assert result.code == 1
    assert "cannot be used" in result.stderr


@pytest.mark.needs("openssl")
def test_key_with_a_password_asks_nobody(tmp_path: Path) -> None:
    """OpenSSL would ask on the terminal, and a service has none."""
    key, crt = str(tmp_path / "a.key"), str(tmp_path / "a.crt")
    words = ["openssl", "genrsa", "-aes128", "-passout", "pass:secret", "-out", key]
    subprocess.run(words, check=True, capture_output=True)
    words = ["openssl", "req", "-x509", "-subj", "/CN=x", "-passin", "pass:secret"]
    files = ["-key", key, "-out", crt]
    subprocess.run([*words, *files], check=True, capture_output=True)
    config = tmp_path / "web.yml"
    config.write_text("tls_server_config: {cert_file: a.crt, key_file: a.key}\n")
    with pytest.raises(PagescanError, match="the key has a password"):
        read(str(config))


def test_client_certificates_need_an_authority(tmp_path: Path) -> None:
    """Both settings or none: one alone would protect nothing."""
    base = "tls_server_config: {cert_file: a.crt, key_file: a.key, "
    for more in (
        "client_ca_file: c.crt}",
        "client_auth_type: VerifyClientCertIfGiven}",
    ):
        config = tmp_path / "web.yml"
        config.write_text(base + more)
        with pytest.raises(PagescanError):
            read(str(config))
