"""The directory of /proc that shows a process: its main thread may have exited."""

import contextlib
import os


def memory_dir(pid: int) -> str:
    """Return /proc/PID, or that of a thread that lives if the main one has exited.

    maps, smaps, pagemap, exe and root are empty then, or not there, in /proc/PID: the
    memory belongs to the threads, and the main thread has let go of it.
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
        # The name may hold anything, also ")": the last one ends it.
        return file.read().rpartition(b") ")[2][:1] not in b"ZXx"
    return False
