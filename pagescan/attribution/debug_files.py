"""Finds the debug information of a file: by build id, by debuglink, by debuginfod.

A file below the target's root is the target's choice, so it must carry the same build
id, or the checksum that the debuglink names.
"""

import contextlib
import os
import time
import zlib

from pagescan.attribution.code_files import CodeFiles, open_own
from pagescan.attribution.elf import BadElfError, Elf, open_elf

_DEBUG_DIR = "/usr/lib/debug"
_LARGEST_DOWNLOAD = 2 << 30
_PIECE = 1 << 20
TIMEOUT = 5.0
LONGEST_DOWNLOAD = 60.0
"""Seconds until a server's first or next bytes, and until its file is complete."""
silent: dict[str, str] = {}
"""The servers that did not answer, with the reason: this process asks them no more."""


def find(elf: Elf, path: bytes, files: CodeFiles) -> int:
    """Return a descriptor of a program's separate debug file; -1: it has none.

    Args:
        elf: The program or library.
        path: Its path, as the target sees it.
        files: The target's files.
    """
    if elf.build_id:
        name = f"{_DEBUG_DIR}/.build-id/{elf.build_id[:2]}/{elf.build_id[2:]}.debug"
        for find_it in (open_own, lambda name: files.open_named(name.encode())):
            fd = find_it(name)
            if _kept(fd, has_build_id(fd, elf.build_id)):
                return fd
    return _by_link(elf, path, files)


def has_build_id(fd: int, build_id: str) -> bool:
    """Whether an open file is an ELF file with that build id."""
    with contextlib.suppress(BadElfError):
        return fd >= 0 and open_elf(fd).build_id == build_id
    return False


def _kept(fd: int, wanted: bool) -> bool:
    """Close a descriptor that is not wanted."""
    if fd >= 0 and not wanted:
        os.close(fd)
    return wanted


def _by_link(elf: Elf, path: bytes, files: CodeFiles) -> int:
    """Follow .gnu_debuglink: a file name and the CRC of that file."""
    link = elf.data(".gnu_debuglink", 4096)
    name, _, _ = link.partition(b"\0")
    if not name or b"/" in name or len(link) < 8:
        return -1
    checksum = int.from_bytes(link[-4:], "little")
    directory = os.path.dirname(path)
    for place in (
        os.path.join(directory, name),
        os.path.join(directory, b".debug", name),
        os.fsencode(_DEBUG_DIR) + os.path.join(directory, name),
    ):
        fd = files.open_named(place)
        if fd >= 0 and _kept(fd, _checksum(fd) == checksum):
            return fd
    return -1


def _checksum(fd: int) -> int:
    crc, offset = 0, 0
    with contextlib.suppress(OSError):
        while piece := os.pread(fd, _PIECE, offset):
            crc = zlib.crc32(piece, crc)
            offset += len(piece)
    return crc


def servers() -> list[str]:
    """Return the debuginfod servers that the environment names."""
    urls = os.environ.get("DEBUGINFOD_URLS", "").split()
    return [url.rstrip("/") for url in urls if url.startswith(("http://", "https://"))]


def fetch(build_id: str) -> int:
    """Return a descriptor of a debug file from a debuginfod server; -1: not found.

    Servers are asked only if DEBUGINFOD_URLS is set. Downloaded files are kept in the
    user's cache, and checked at each use. A server that does not answer is asked only
    once: a target has many files.
    """
    if not build_id or not servers():
        return -1
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = f"{base}/pagescan/debuginfod/{build_id}"
    fd = open_own(place)
    if _kept(fd, has_build_id(fd, build_id)):
        return fd
    for server in servers():
        if server not in silent and _fetch_from(server, build_id, place):
            fd = open_own(place)
            if _kept(fd, has_build_id(fd, build_id)):
                return fd
    return -1


def _fetch_from(server: str, build_id: str, place: str) -> bool:
    """Download a file, and return whether the server sent one."""
    import http.client
    import urllib.error

    try:
        _download(f"{server}/buildid/{build_id}/debuginfo", place)
    except urllib.error.HTTPError as error:  # an answer: it has no such file
        error.close()
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException) as error:
        silent[server] = str(getattr(error, "reason", error)) or "no answer"
    except (OSError, ValueError):
        pass
    else:
        return True
    return False


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the download takes too long")


def _download(url: str, place: str) -> None:
    """Write a server's answer to a file, which appears only when it is complete."""
    import tempfile
    import urllib.request

    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    request = urllib.request.Request(  # noqa: S310 - `servers` checks the scheme
        url, headers={"User-Agent": "pagescan"}
    )
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as answer,  # noqa: S310 - as above
        tempfile.NamedTemporaryFile(dir=os.path.dirname(place), delete=False) as file,
    ):
        try:
            size, deadline = 0, time.monotonic() + LONGEST_DOWNLOAD
            while size <= _LARGEST_DOWNLOAD and (piece := answer.read1(_PIECE)):
                size += file.write(piece)
                _check_time(deadline)
            file.flush()
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise
