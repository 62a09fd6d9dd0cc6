"""Where /proc shows the memory of a process and its program; whether it exists."""

import contextlib
import os

_PF_EXITING = 0x4  # include/linux/sched.h


def memory_dir(pid: int) -> str:
    """Return /proc/PID, or the directory of a living thread if the main one has exited.

    In that case maps, smaps, pagemap, exe and root are empty or missing in /proc/PID:
    the memory belongs to the threads, and the main thread has released it.
    """
    whole = f"/proc/{pid}"
    if _lives(whole):
        return whole
    with contextlib.suppress(OSError):
        for tid in os.listdir(f"{whole}/task"):
            if _lives(f"{whole}/task/{tid}"):
                return f"{whole}/task/{tid}"
    return whole


def _lives(directory: str) -> bool:
    with contextlib.suppress(OSError), open(f"{directory}/stat", "rb") as file:
        # The name may contain any character, also ")": the last one is the end.
        return file.read().rpartition(b") ")[2][:1] not in b"ZXx"
    return False


def is_exiting(pid: int) -> bool:
    """Whether all threads are exiting: the memory goes before the pidfd tells.

    After an exec one thread is left, and it is not exiting.
    """
    tasks = f"/proc/{pid}/task"
    try:
        return all(_is_exiting(f"{tasks}/{tid}") for tid in os.listdir(tasks))
    except OSError:
        return True


def _is_exiting(directory: str) -> bool:
    with contextlib.suppress(OSError), open(f"{directory}/stat", "rb") as file:
        return bool(int(file.read().rpartition(b") ")[2].split()[6]) & _PF_EXITING)
    return True


def executable(pid: int) -> str | None:
    """Return the path of the program that a process runs; None: hidden."""
    try:
        return os.readlink(f"{memory_dir(pid)}/exe")
    except OSError:
        return None


def program_name(pid: int) -> str:
    """Return the file name of the program that a process runs; empty: hidden."""
    return os.path.basename(executable(pid) or "").removesuffix(" (deleted)")


def has_address_space(pagemap: int) -> bool:
    """Whether the address space of an open pagemap still exists: no exec, no exit.

    The pagemap of a dead address space reads as empty; source: pagemap_read in
    fs/proc/task_mmu.c.
    """
    try:
        return bool(os.pread(pagemap, 8, 0))
    except OSError:
        return False
