"""What the file system says, with the fix, and files that are never seen half-written.

Imports only the errors and the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os

from ..errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def storage_error(error: OSError, path: str, doing: str) -> StorageError:
    """Make the error that a caller sees of what the operating system answered.

    :param doing: what was tried, as in "append to"
    """
    folder = os.path.dirname(path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not os.path.isdir(folder):
        fix = f"the directory {folder} does not exist: create it, or configure another path"
    elif error.errno in (errno.EACCES, errno.EPERM):
        fix = f"let this process read and write it and its directory {folder}"
    elif error.errno == errno.EROFS:
        fix = "the file system is read-only: configure a path on a writable one"
    elif error.errno in _FULL:
        fix = "the disk, a quota or the file size limit is full: make room, then send it again"
    else:
        fix = "nothing of this commit was applied"
    return StorageError(f"Could not {doing} {path}: {error.strerror or error}; {fix}.")


def require_directory(path: str) -> None:
    """Find out before the first write that there is nowhere to write.

    :raises StorageError: the directory of ``path`` does not exist
    """
    if not os.path.isdir(os.path.dirname(path)):
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise storage_error(missing, path, "open")


def read_if_exists(path: str) -> bytes | None:
    """Return what is in a file, or ``None`` where there is none.

    :raises StorageError: it is there and cannot be read
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, "read") from error


def write_atomically(path: str, content: bytes, fsync: bool) -> None:
    """Replace a file so that a reader sees all of the old or all of the new one.

    The caller holds the lock: the temporary file beside it has a fixed name, so that a process
    killed here leaves one file behind and not one per kill.

    :raises OSError: not written; the old file is untouched
    """
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def close_quietly(fd: int | None) -> None:
    """Close a file descriptor; one that is ``None`` or already gone is fine."""
    if fd is not None:
        with contextlib.suppress(OSError):
            os.close(fd)


def sync_directory(path: str) -> None:
    """Make a new file's name survive a power failure."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
