"""Writes a file that is whole at any moment, and leaves no draft of it."""

import contextlib
import errno
import os

_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
"""The errors of O_TMPFILE where a file system, or a kernel, does not have it."""


def write_whole(path: str, data: bytes, mode: int) -> None:
    """Write or replace a file; a reader never sees a part of it.

    The new one has no name until it is complete, where the file system can do that: a
    kill leaves nothing then. Source: open(2), O_TMPFILE.

    Args:
        path: The file; a link is replaced, and not followed.
        data: All of its content.
        mode: Its mode, whatever the umask.

    Raises:
        OSError: It cannot be written; an earlier file is as it was.
    """
    folder = os.path.dirname(path) or "."
    draft = os.path.join(folder, f".pagescan-{os.getpid()}")
    with contextlib.suppress(OSError):
        os.unlink(draft)  # of a process that had this pid
    try:
        descriptor, named = _new_file(folder, draft)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            if not named:
                # with a folder, which is not used, Python calls linkat(2), not link(2)
                source = f"/proc/self/fd/{descriptor}"
                os.link(source, draft, src_dir_fd=descriptor, follow_symlinks=True)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _new_file(folder: str, draft: str) -> tuple[int, bool]:
    """Return a descriptor of a new file, and whether it has the name of the draft."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600), False
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.open(draft, flags, 0o600), True
