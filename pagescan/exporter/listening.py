"""Opens the socket that --listen names: an address, a path, or the one of systemd."""

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Iterator

from pagescan.model.errors import AccessDeniedError, PagescanError, UsageError

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):([0-9]{1,5})")
_UNIX = "unix:"
SYSTEMD = "systemd"
_FIRST = 3  # the first descriptor that systemd passes; source: sd_listen_fds(3)
_WAITING = 16
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""The errors of addresses that this machine does not have, as without IPv6."""
_LONGEST = 107  # bytes of a path in struct sockaddr_un


@contextlib.contextmanager
def listening(words: str) -> Iterator[socket.socket]:
    """Yield a listening socket; at the end close it, and remove its path.

    Args:
        words: HOST:PORT, [HOST]:PORT, unix:PATH, or "systemd": the socket that systemd
            has passed.

    Raises:
        UsageError: The words are malformed.
        PagescanError: The address is in use, or is no address of this machine.
        AccessDeniedError: This user may not use the port, or create the socket.
    """
    if words == SYSTEMD:
        passed = _of_systemd()
        try:
            yield passed
        finally:
            passed.close()
    elif words.startswith(_UNIX):
        path = words.removeprefix(_UNIX)
        sock = _at_path(path)
        try:
            yield sock
        finally:
            sock.close()
            with contextlib.suppress(OSError):
                os.unlink(path)
    else:
        sock = _at_address(*parse_address(words))
        try:
            yield sock
        finally:
            sock.close()


def parse_address(words: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; without a host, all addresses.

    Raises:
        UsageError: It is malformed.
    """
    match = _ADDRESS.fullmatch(words)
    if match is None or int(match[3]) > 0xFFFF:
        raise UsageError(
            f"malformed address: {words!r}",
            hint="HOST:PORT, as in 127.0.0.1:9842 or [::1]:9842; unix:PATH; systemd",
        )
    return match[1] or match[2], int(match[3])


def name_of(sock: socket.socket) -> str:
    """Return the address of a listening socket, in the form of --listen."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"{_UNIX}{os.fsdecode(name)}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"


def is_open(sock: socket.socket) -> bool:
    """Whether other machines may reach a socket."""
    if sock.family == socket.AF_UNIX:
        return False
    host = str(sock.getsockname()[0])
    return not (host.startswith("127.") or host == "::1")


def _at_address(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise PagescanError(
            f"cannot listen on {host}: it is no address here"
        ) from error
    if not host:  # both versions of IP, with one socket
        found.sort(key=lambda row: row[0] != socket.AF_INET6)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    *others, last = found
    for family, _, protocol, _, address in others:
        try:
            return _bound(family, protocol, address, both=not host)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise _refused(where, error) from error
    family, _, protocol, _, address = last
    try:
        return _bound(family, protocol, address, both=not host)
    except OSError as error:
        raise _refused(where, error) from error


def _bound(
    family: int, protocol: int, address: tuple[object, ...], *, both: bool
) -> socket.socket:
    """Return a listening socket; `both`: one of IPv6 takes IPv4, too."""
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind(address)
        sock.listen(_WAITING)
    except OSError:
        sock.close()
        raise
    return sock


def _at_path(path: str) -> socket.socket:
    if not path or len(os.fsencode(path)) > _LONGEST:
        raise UsageError(
            f"malformed address: {_UNIX + path!r}",
            hint=f"unix:PATH, with a path of 1 to {_LONGEST} bytes",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)  # for its owner and its group
    try:
        _remove_dead(path)
        sock.bind(path)
        sock.listen(_WAITING)
    except OSError as error:
        sock.close()
        raise _refused(path, error) from error
    except PagescanError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_dead(path: str) -> None:
    """Remove a socket file whose program has ended; refuse any other file."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise PagescanError(
            f"cannot listen on {path}: it exists, and is no socket",
            hint="unix:PATH creates a socket: give a path that does not exist",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _refused(where: str, error: OSError) -> PagescanError:
    reason = (error.strerror or str(error)).lower()
    message = f"cannot listen on {where}: {reason}"
    if error.errno == errno.EADDRINUSE:
        hint = "another program listens there: give another address with --listen"
        return PagescanError(message, hint=hint, call="bind", errno=error.errno)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "a port below 1024 needs CAP_NET_BIND_SERVICE, a path a writable folder"
        return AccessDeniedError(message, hint=hint, call="bind", errno=error.errno)
    return PagescanError(message, call="bind", errno=error.errno)


def _of_systemd() -> socket.socket:
    """Return the socket that systemd has passed; source: sd_listen_fds(3)."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count != "1":
        raise UsageError(
            "--listen systemd: systemd has not passed exactly one socket",
            hint="start it by its socket unit; see share/pagescan",
        )
    os.set_inheritable(_FIRST, False)
    return socket.socket(fileno=_FIRST)
