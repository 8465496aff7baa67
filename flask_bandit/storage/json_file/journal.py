"""An append-only file of JSON lines that are chained by checksums: the truth of a JSON storage.

Each line is ``["<crc of the rest>","<crc of the file before it>",{...}]``, so that a line can be
checked alone and a line that is missing, doubled or moved breaks the chain. Knows nothing of
bandits; imports only the errors and the standard library.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import StorageCorruptError, StorageError
from ..files import close_quietly, storage_error, sync_directory
from .framing import (
    FORMAT,
    GENERATION_DIGITS,
    frame,
    header_of,
    is_complete_json,
    is_torn_header,
    make_header,
    unframe,
)

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a journal.

    :param generation: the random id in the journal's first line
    :param offset: bytes before this place
    :param chain: CRC-32 of these bytes
    :param lines: lines before this place
    """

    generation: str
    offset: int
    chain: int
    lines: int


class PrunedError(Exception):
    """The journal was replaced by itself without details of some decisions: read it anew."""


class Journal:
    """One process's view of the file. Not thread-safe; writing methods need the file lock.

    :param path: the file
    :param fsync: wait at each append until the disk has it
    """

    def __init__(self, path: str, fsync: bool = False) -> None:
        self.path = path
        self.offset = 0
        self._fsync = fsync
        self._generation = ""
        self._prunes = 0
        self._chain = 0
        self._lines = 0
        self._fd: int | None = None
        self._write_fd: int | None = None
        self._inode = (0, 0)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give the file descriptors back."""
        close_quietly(self._fd)
        close_quietly(self._write_fd)
        self._fd = self._write_fd = None

    @property
    def mark(self) -> Mark:
        """The place up to which the file was read or written."""
        return Mark(self._generation, self.offset, self._chain, self._lines)

    def open(self) -> bool:
        """Open the file and read its first line.

        :return: ``False`` where there is no file, or none with a whole first line
        :raises StorageCorruptError: the first line is not one of this library
        """
        try:
            self._open_fd()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, self.path, "open") from error
        return self._begin()

    def reader(self) -> Journal:
        """Return another view of the same file, at its second line, to be closed by the caller.

        It stays readable as it is when the file is replaced.
        """
        assert self._fd is not None
        other = Journal(self.path)
        try:
            other._fd = os.dup(self._fd)
        except OSError as error:
            raise storage_error(error, self.path, "open again") from error
        other._begin()
        return other

    def _begin(self) -> bool:
        line, newline, _ = self._pread(4096, 0).partition(b"\n")
        if not newline and is_torn_header(line):
            self.close()
            return False
        header = header_of(line + b"\n")
        if header is None:
            raise self.corrupt("it does not begin as a journal of Flask-Bandit does")
        if header["format"] != FORMAT:
            raise StorageError(
                f"{self.path} has format {header['format']}, this version of Flask-Bandit knows"
                f" format {FORMAT}: upgrade Flask-Bandit."
            )
        if not newline:
            # Complete but for its newline, which the next writer supplies.
            self.close()
            return False
        self._generation = header["generation"]
        self._prunes = header.get("prunes", 0)
        self.offset = self._chain = self._lines = 0
        self._advance(line + b"\n")
        return True

    def create(self, after: Journal | None = None) -> None:
        """Write the first line of a new file, under the lock.

        :param after: the journal that this one will replace
        :raises StorageError: it cannot be written
        """
        if after is None:
            header = make_header(secrets.token_hex(GENERATION_DIGITS // 2))
        else:
            header = make_header(after._generation, after._prunes + 1)
        try:
            fd = self._writer(os.O_CREAT)
            content = os.pread(fd, 4096, 0)
            if header_of(content + b"\n") is not None:
                # All of it was written except the newline.
                self._append(fd, b"\n", len(content))
                return
            os.ftruncate(fd, 0)
            self._append(fd, header, 0)
            if self._fsync:
                sync_directory(self.path)
        except OSError as error:
            raise storage_error(error, self.path, "create") from error

    def size(self) -> int:
        """Return the size of the file, after checking that it is still the one that was opened.

        :raises PrunedError: it was pruned
        :raises StorageCorruptError: it was removed, cut, or replaced by something else
        """
        try:
            stat = os.stat(self.path)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise StorageCorruptError(
                    f"{self.path} was removed while it was in use. Put it back from a backup, or"
                    " restart the processes to see what is missing."
                ) from None
            raise storage_error(error, self.path, "look at") from error
        if (stat.st_dev, stat.st_ino) != self._inode:
            self._follow_replacement()
        if stat.st_size < self.offset:
            raise StorageCorruptError(
                f"{self.path} has {stat.st_size} bytes, and {self.offset} were there before: it"
                " was cut while it was in use. Restore it from a backup; nothing was reset."
            )
        return stat.st_size

    def pull(self, end: int) -> Iterator[tuple[int, Any]]:
        """Yield (offset, content) of the whole lines between the mark and ``end``.

        The mark moves past a line when the next one is asked for.

        :raises StorageCorruptError: a line is not what was written
        """
        carry = b""
        position = self.offset
        while position < end:
            block = self._pread(min(BLOCK, end - position), position)
            if not block:
                return
            position += len(block)
            *lines, carry = (carry + block).split(b"\n")
            for line in lines:
                whole = line + b"\n"
                try:
                    content = unframe(whole, self._chain)
                except ValueError as error:
                    raise self.corrupt(str(error)) from None
                yield self.offset, content
                self._advance(whole)

    def repair(self, size: int, cut: bool) -> bool:
        """Remove what an interrupted write left behind the last whole line, under the lock.

        :param cut: ``False`` leaves a torn line where it is
        :return: ``True`` if there is now another whole line to pull
        :raises StorageCorruptError: that is not what an interrupted write leaves
        """
        if size == self.offset:
            return False
        tail = self._pread(size - self.offset, self.offset)
        try:
            unframe(tail + b"\n", self._chain)
        except ValueError:
            # A torn line is the beginning of one. A whole line with anything but a newline
            # behind it was acknowledged, and damaged later: cutting it would lose a commit.
            if b"\n" in tail or is_complete_json(tail):
                raise self.corrupt("it does not end where it should") from None
            if cut:
                self._cut()
            return False
        self._append(self._writer(), b"\n", size)
        return True

    def append(self, payload: bytes) -> int:
        """Add one line after the mark and move the mark, under the lock, all pulled and repaired.

        :return: the offset of the line
        :raises StorageError: not written, and nothing of it is left in the file
        """
        start = self.offset
        line = frame(payload, self._chain)
        fd = self._writer()
        self._append(fd, line, start)
        if self._fsync:
            try:
                os.fdatasync(fd)
            except OSError as error:
                # Others may have read the line, so it stays; the mark does not move, and the next
                # call reads it from the file.
                raise storage_error(error, self.path, "sync to the disk") from error
        self._advance(line)
        return start

    def read_at(self, offset: int) -> Any:
        """Return the content of the line at ``offset``.

        :raises StorageCorruptError: no whole line is there
        """
        length = 4096
        line = b""
        while b"\n" not in line:
            line = self._pread(length, offset)
            if len(line) < length and b"\n" not in line:
                break
            length *= 4
        try:
            return unframe(line[: line.find(b"\n") + 1])
        except ValueError as error:
            raise StorageCorruptError(
                f"{self.path}, the line at byte {offset} is not what was written: {error}."
                " Restore the file from a backup; nothing was changed or reset."
            ) from None

    def starts_with(self, mark: Mark) -> bool:
        """Tell whether the bytes before ``mark`` are the ones that it was made for."""
        return mark.generation == self._generation and self._has_chain(mark.offset, mark.chain)

    def move_to(self, mark: Mark) -> None:
        """Go on from a mark that :meth:`starts_with` has confirmed."""
        self.offset, self._chain, self._lines = mark.offset, mark.chain, mark.lines

    def replace(self, other: Journal) -> None:
        """Put this file in the place of the other one, under the lock, whatever happens then.

        :raises StorageError: not done, or the disk may forget it
        """
        path = os.path.realpath(other.path)
        try:
            os.replace(self.path, path)
            self.path, self._fsync = other.path, other._fsync
            # Or a power failure brings the old file back, without the commits that follow.
            sync_directory(path)
        except OSError as error:
            raise storage_error(error, path, "replace") from error

    def sync(self) -> None:
        """Wait until the disk has what was appended.

        :raises StorageError: it could not be waited for
        """
        try:
            os.fsync(self._writer())
        except OSError as error:
            raise storage_error(error, self.path, "sync to the disk") from error

    def corrupt(self, why: str) -> StorageCorruptError:
        """Make the error for the line after the mark."""
        return StorageCorruptError(
            f"{self.path}, line {self._lines + 1} (byte {self.offset}) is not what was written:"
            f" {why}. Nothing was changed or reset. Restore the file from a backup; or, to give up"
            " this line and all that follow, stop the application, keep a copy, cut the file by"
            f" 'truncate --size={self.offset}' and remove .json, .index and .digests beside it."
        )

    def _cut(self) -> None:
        try:
            os.ftruncate(self._writer(), self.offset)
        except OSError as error:
            raise storage_error(error, self.path, "repair") from error

    def _advance(self, line: bytes) -> None:
        self._chain = zlib.crc32(line, self._chain)
        self._lines += 1
        self.offset += len(line)

    def _open_fd(self) -> None:
        self.close()
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        stat = os.fstat(self._fd)
        self._inode = (stat.st_dev, stat.st_ino)

    def _writer(self, flags: int = 0) -> int:
        if self._write_fd is None:
            try:
                self._write_fd = os.open(
                    self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o666
                )
            except OSError as error:
                raise storage_error(error, self.path, "open for writing") from error
        return self._write_fd

    def _append(self, fd: int, content: bytes, size: int) -> None:
        """Write with one call, and take back what did not fit."""
        try:
            written = os.write(fd, content)
        except OSError as error:
            raise storage_error(error, self.path, "append to") from error
        if written == len(content):
            return
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            # The next writer cuts it: a torn line is never read.
            raise storage_error(error, self.path, "take back a torn line from") from error
        raise StorageError(
            f"Could append only {written} of {len(content)} bytes to {self.path} and took them"
            " back: the disk, a quota or the file size limit is full. Make room and send it again."
        )

    def _pread(self, length: int, offset: int) -> bytes:
        assert self._fd is not None
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise storage_error(error, self.path, "read") from error

    def _has_chain(self, end: int, chain: int) -> bool:
        crc = position = 0
        while position < end:
            block = self._pread(min(BLOCK, end - position), position)
            if not block:
                return False
            crc = zlib.crc32(block, crc)
            position += len(block)
        return crc == chain

    def _follow_replacement(self) -> None:
        """Accept another file under the same name if all that was read is in it."""
        try:
            self._open_fd()
        except OSError as error:
            raise storage_error(error, self.path, "open again") from error
        if self._has_chain(self.offset, self._chain):
            return
        # Found out again at the next call, if the caller cannot go on with that file.
        self._inode = (0, 0)
        header = header_of(self._pread(4096, 0).partition(b"\n")[0] + b"\n")
        if (
            header is not None
            and header["generation"] == self._generation
            and header.get("prunes", 0) > self._prunes
        ):
            raise PrunedError
        raise self.replaced()

    def replaced(self) -> StorageCorruptError:
        """Make the error for another file under the same name."""
        return StorageCorruptError(
            f"{self.path} was replaced by another file while it was in use. Put the first one"
            " back, or restart the processes to go on with this one."
        )
