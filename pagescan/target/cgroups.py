"""The cgroups of a process, and the units, containers and pods that they name."""

import contextlib
import os
import re
from collections.abc import Iterable
from functools import cache

from pagescan.target.proc_files import read_proc

_CONTAINER = re.compile(r"(?<![0-9a-f])([0-9a-f]{64}|[0-9a-f]{32}-[0-9]+)(?![0-9a-f-])")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")
_DELETED = " (deleted)"


def cgroup_paths(pid: int) -> tuple[str, ...]:
    """Return the cgroups of a process, one path per hierarchy; (): it has ended.

    The paths are those of /proc/PID/cgroup, relative to the root of this process's
    cgroup namespace. Equal paths are listed once; that of the unified hierarchy is
    last.
    """
    text = read_proc(pid, "cgroup") or b""
    paths: dict[str, None] = {}
    for line in os.fsdecode(text).splitlines():
        # ID:CONTROLLERS:PATH, and the path may contain a colon
        path = line.split(":", 2)[-1].removesuffix(_DELETED)
        paths[path] = None
    return tuple(paths)


def within(path: str, parent: str) -> bool:
    """Whether a cgroup is the other one, or lies below it."""
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def unit_name(name: str) -> str:
    """Return the full name of a unit; a name without a suffix is a service."""
    return name if name.endswith(_SUFFIXES) else f"{name}.service"


def has_unit(paths: Iterable[str], unit: str) -> bool:
    """Whether a cgroup is the unit's, or lies below it."""
    # systemd puts "_" before a name that the cgroup file system could mistake.
    return any(not {unit, f"_{unit}"}.isdisjoint(path.split("/")) for path in paths)


def unit_of(paths: Iterable[str]) -> str | None:
    """Return the innermost service or scope in the paths; None: they have none."""
    for path in paths:
        for part in reversed(path.split("/")):
            if part.endswith((".service", ".scope")):
                return part.removeprefix("_")
    return None


def pod_of(paths: Iterable[str]) -> str | None:
    """Return the uid of the Kubernetes pod that the paths name, with dashes."""
    for path in paths:
        if found := _POD.search(path):
            return found[1].replace("_", "-")
    return None


def container_of(pid: int, paths: Iterable[str]) -> str | None:
    """Return the id of the container that a process runs in; None: no container.

    The id is the last one in a path: 64 hex digits, or on ECS 32 and a number. For a
    process in the root of this process's own cgroup namespace the path is only "/".
    Its cgroup is then looked up by its inode, in the tree that process 1 sees.
    """
    paths = tuple(paths)
    for path in paths:
        if found := _CONTAINER.findall(path):
            return str(found[-1])
    if "/" not in paths or not _in_private_namespace():
        return None
    found = _CONTAINER.findall(_path_of(_inode(_unified(pid))))
    return str(found[-1]) if found else None


@cache
def _in_private_namespace() -> bool:
    """Whether the cgroup namespace of this process is another than that of process 1.

    True also if that is hidden: the look-up then finds nothing.
    """
    try:
        return os.readlink("/proc/self/ns/cgroup") != os.readlink("/proc/1/ns/cgroup")
    except OSError:
        return True


def _unified(pid: int) -> str:
    """Return where a process sees the unified hierarchy, alone or beside older ones."""
    top = f"/proc/{pid}/root/sys/fs/cgroup"
    return f"{top}/unified" if os.path.isdir(f"{top}/unified") else top


def _inode(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino
    return 0


@cache
def _path_of(inode: int) -> str:
    """Return the cgroup that has an inode in the tree of process 1, or an empty path.

    An inode of the unified hierarchy is never used again, so the answer stays right.
    """
    folders = os.walk(_unified(1)) if inode else ()
    return next((folder for folder, _, _ in folders if _inode(folder) == inode), "")
