"""The cgroups of a process, and the units, containers and pods that they name."""

import os
import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache

from pagescan.model.units import escape
from pagescan.target.proc_files import read_proc

_CONTAINER = re.compile(r"(?<![0-9a-f])([0-9a-f]{64}|[0-9a-f]{32}-[0-9]+)(?![0-9a-f-])")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")
_DELETED = " (deleted)"
_PATIENCE = 5.0  # seconds for process 1's view of all cgroups
_NAMED = 3  # units or containers that a message names


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
        paths.pop(path, None)
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


def units_like(unit: str, many: Iterable[Iterable[str]]) -> list[str]:
    """Return the units in some paths that a user may have meant with another name.

    These are the instances of a template, as postgresql@15-main.service is one where
    postgresql.service has no process, and names that are escaped otherwise.

    Args:
        unit: The full name.
        many: The paths of some processes.
    """
    stem, _, suffix = _unescaped(unit).rpartition(".")
    template = f"{stem.partition('@')[0]}@"
    found = set()
    for name in {part for paths in many for path in paths for part in path.split("/")}:
        plain, _, kind = _unescaped(name.removeprefix("_")).rpartition(".")
        if kind == suffix and (plain == stem or plain.startswith(template)):
            found.add(name.removeprefix("_"))
    return sorted(found - {unit})


def _unescaped(unit: str) -> str:
    """Return a name without the escapes of systemd-escape(1), which are of bytes."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda digits: chr(int(digits[1], 16)), unit)


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


def container_of(paths: Sequence[str]) -> str | None:
    """Return the id of the container that a process runs in; None: no container.

    The id is the last one in a path: 64 hex digits, or on ECS 32 and a number. A
    process in the root of this process's own cgroup namespace has only "/" as its
    path: it is in the container of this process.

    Args:
        paths: Those of the process, from `cgroup_paths`.
    """
    for path in paths:
        if found := _CONTAINER.findall(path):
            return str(found[-1])
    if not paths or paths[-1] != "/" or not _in_private_namespace():
        return None
    found = _CONTAINER.findall(_own_path())
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


@cache
def _own_path() -> str:
    """Return where process 1 sees the root of this process's cgroup namespace, or "".

    Process 1 may be a target, too: it may have mounted anything in that place, such as
    a file system that never answers. So the wait has an end.
    """
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(_look_up()), daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return found[0] if found else ""


def _look_up() -> str:
    """Return the folder of process 1's tree that is the root of this process's tree.

    The device has to be the same, too: only the kernel gives it, and the unified
    hierarchy has one device however often it is mounted.
    """
    own = _identity(_unified("/sys/fs/cgroup"))
    for folder, inner, _ in os.walk(_unified("/proc/1/root/sys/fs/cgroup")):
        found = _identity(folder)
        if found == own is not None:
            return folder
        if found is None or own is None or found[0] != own[0]:
            inner.clear()
    return ""


def _unified(top: str) -> str:
    """Return where the unified hierarchy is mounted, alone or beside older ones."""
    return f"{top}/unified" if os.path.isdir(f"{top}/unified") else top


def _identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a folder; None: it is gone."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def some_of(names: Sequence[str]) -> str:
    """Return the first names of a list, for a message."""
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(map(escape, names[:_NAMED])) + more
