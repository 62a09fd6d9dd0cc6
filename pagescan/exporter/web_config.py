"""Reads a web config file, in Prometheus' format: TLS, basic authentication, headers.

Settings that Python's TLS cannot follow are refused, never ignored: the author of the
file relies on them.
"""

import os
import ssl
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pagescan.model.errors import PagescanError, UsageError, file_error

_VERSIONS = {
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_TLS = {
    "cert_file",
    "key_file",
    "client_ca_file",
    "client_auth_type",
    "min_version",
    "max_version",
}
_HEADERS = {
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
}
_TOP = {"tls_server_config", "http_server_config", "basic_auth_users"}

Stamp = tuple[tuple[int, int, int] | None, ...]
"""The state of the files, by which a change is noticed."""


@dataclass(slots=True)
class WebConfig:
    """The settings of a web config file.

    Attributes:
        files: The file itself, and those that it names.
        tls: How connections are encrypted; None: they are not.
        users: The bcrypt hash of each user's password.
        headers: The additional headers of each answer.
        stamp: The state of the files when they were read.
    """

    files: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    users: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    stamp: Stamp = ()

    def changed(self) -> bool:
        """Whether one of the files has changed since it was read."""
        return self.stamp != _stamp(self.files)

    def accept_change(self) -> None:
        """Regard the files as read in their present state."""
        self.stamp = _stamp(self.files)


def read(path: str) -> WebConfig:
    """Read a web config file, and the certificates that it names.

    Raises:
        UsageError: The file has an unknown setting, or a malformed one.
        PagescanError: A file cannot be read, or is no certificate.
    """
    top = _mapping(_parsed(path), path, "the file", _TOP)
    tls = _mapping(top.get("tls_server_config"), path, "tls_server_config", None)
    http = _mapping(
        top.get("http_server_config"), path, "http_server_config", {"http2", "headers"}
    )
    users = _mapping(top.get("basic_auth_users"), path, "basic_auth_users", None)
    headers = _mapping(http.get("headers"), path, "headers", _HEADERS)
    named = tuple(
        _beside(path, tls, key)
        for key in ("cert_file", "key_file", "client_ca_file")
        if tls.get(key)
    )
    files = (path, *named)
    stamp = _stamp(files)
    return WebConfig(
        files,
        _tls(path, tls) if tls else None,
        {str(user): _hash(path, str(user), word) for user, word in users.items()},
        {name: _header(path, name, value) for name, value in headers.items()},
        stamp,
    )


def _parsed(path: str) -> object:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        _refuse_second_keys(yaml.compose(text, yaml.SafeLoader), path)
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise UsageError(f"web config {path}{line}: {problem}") from error
    except ValueError as error:  # 2001-13-45 is a date for YAML
        raise UsageError(f"web config {path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"web config {path}: it is nested too deeply") from error
    except OSError as error:
        _unreadable(path, error)


def _refuse_second_keys(node: Any, path: str) -> None:  # noqa: ANN401 - PyYAML's
    """Refuse a setting that is there twice: the loader would ignore the first one."""
    if getattr(node, "id", "") != "mapping":
        return
    seen = set()
    for key, value in node.value:
        if str(key.value) in seen:
            line = key.start_mark.line + 1
            raise UsageError(f"web config {path}, line {line}: {key.value} is repeated")
        seen.add(str(key.value))
        _refuse_second_keys(value, path)


def _mapping(
    value: object, path: str, name: str, known: set[str] | None
) -> Dict[str, Any]:
    """Return a mapping of the file; an empty one where it is missing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"web config {path}: {name} is not a mapping")
    unknown = sorted(map(str, value.keys() - known)) if known is not None else []
    if unknown:
        raise UsageError(
            f"web config {path}: unknown setting in {name}: {', '.join(unknown)}",
            hint=f"there are: {' '.join(sorted(known or ()))}",
        )
    return value


def _tls(path: str, settings: Dict[str, Any]) -> ssl.SSLContext:
    if others := sorted(map(str, settings.keys() - _TLS)):
        raise UsageError(
            f"web config {path}: tls_server_config has a setting that this exporter"
            f" cannot follow: {', '.join(others)}",
            hint=f"it follows: {' '.join(sorted(_TLS))}",
        )
    cert, key = settings.get("cert_file"), settings.get("key_file")
    if not cert or not key:
        raise UsageError(
            f"web config {path}: tls_server_config needs cert_file and key_file"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _one_of(path, settings, "min_version", _VERSIONS, "TLS12")
    context.maximum_version = _one_of(path, settings, "max_version", _VERSIONS, "TLS13")
    if context.minimum_version > context.maximum_version:
        raise UsageError(f"web config {path}: min_version is above max_version")
    asked = _one_of(path, settings, "client_auth_type", _CLIENTS, "NoClientCert")
    pair = _beside(path, settings, "cert_file"), _beside(path, settings, "key_file")
    _load_pair(context, *pair)
    ca = settings.get("client_ca_file")
    if asked is not ssl.CERT_NONE and not ca:
        raise UsageError(f"web config {path}: client_auth_type needs client_ca_file")
    if ca and asked is ssl.CERT_NONE:
        raise UsageError(
            f"web config {path}: client_ca_file has no effect without client_auth_type"
        )
    if ca:
        _load_ca(context, _beside(path, settings, "client_ca_file"))
    context.verify_mode = asked
    return context


def _one_of(
    path: str, settings: Dict[str, Any], key: str, known: Dict[str, Any], usual: str
) -> Any:  # noqa: ANN401 - a version, or a kind of verification
    word = settings.get(key) or usual
    if not isinstance(word, str) or word not in known:
        raise UsageError(
            f"web config {path}: {key} cannot be {word!r}",
            hint=f"it is one of: {' '.join(known)}",
        )
    return known[word]


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    for name in (cert, key):
        _check_readable(name)
    try:
        # Without a function OpenSSL would ask for a password on the terminal.
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise PagescanError(
            f"the certificate {cert} and the key {key} cannot be used: {_reason(error)}"
        ) from error


def _load_ca(context: ssl.SSLContext, ca: str) -> None:
    _check_readable(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise PagescanError(
            f"the certificates {ca} cannot be used: {_reason(error)}"
        ) from error


def _no_password() -> str:
    raise ValueError("the key has a password")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate in it").lower().replace("_", " ")
    return str(error)


def _header(path: str, name: str, value: object) -> str:
    """Return the value of a header; refuse what HTTP cannot send."""
    text = str(value)
    is_one = isinstance(value, str) or type(value) is int  # as in X-XSS-Protection: 0
    if not (is_one and text.isascii() and text.isprintable()):
        raise UsageError(
            f"web config {path}: the header {name} cannot be {value!r}",
            hint="its value is one line of ASCII characters",
        )
    return text


def _hash(path: str, user: str, word: object) -> bytes:
    """Return the hash of a password; refuse any hash that is not bcrypt's."""
    import bcrypt

    try:
        text = str(word).encode()
        bcrypt.checkpw(b"", text)
    except ValueError as error:
        raise UsageError(
            f"web config {path}: the password of {user!r} is no bcrypt hash",
            hint="htpasswd -nBC 10 USER prints one",
        ) from error
    return text


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        _unreadable(path, error)


def _unreadable(path: str, error: OSError) -> NoReturn:
    raise file_error(error, f"read {path}") from error


def _beside(path: str, settings: Dict[str, Any], key: str) -> str:
    """Return a path that the file names, which is relative to the file's folder."""
    name = settings[key]
    if not isinstance(name, str) or "\0" in name:
        raise UsageError(f"web config {path}: {key} cannot be {name!r}")
    return os.path.join(os.path.dirname(path), name)


def _stamp(files: tuple[str, ...]) -> Stamp:
    return tuple(map(_state, files))


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
