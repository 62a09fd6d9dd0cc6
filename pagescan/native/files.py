"""Files that a target names: looked up below its root, before anything is opened."""

from pagescan.native.door import check, ffi, lib


def open_in_root(root: int, name: bytes, *, follow: bool = False) -> int:
    """Look up a file below a root directory; return a descriptor with O_PATH.

    No link leads out of the root, and looking up has no effect on the file.

    Args:
        root: The open directory.
        name: The path; its first slash means the root.
        follow: Whether symbolic links are followed; else a link is an error.

    Raises:
        OSError: ENOENT; ELOOP, there is a link; ENOSYS.
    """
    text = ffi.new("char[]", name)
    return check(lib.ps_open_in_root(root, text, follow))
