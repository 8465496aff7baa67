"""An append-only file of JSON lines that are chained by checksums: the truth of a JSON storage.

Each line is ``["<crc of the rest>","<crc of the file before it>",{...}]``, so that a line can be
checked alone and a line that is missing, doubled or moved breaks the chain. Knows nothing of
bandits; imports only the errors and the standard library.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import StorageCorruptError, StorageError
from .files import close_quietly, storage_error, sync_directory

FORMAT = 1
BLOCK = 1 << 20
_HEX = b"0123456789abcdef"
_GENERATION_DIGITS = 32


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


def frame(payload: bytes, chain: int) -> bytes:
    """Make the line that holds ``payload`` in a file whose bytes so far have the CRC ``chain``."""
    body = b'"%08x",%b]' % (chain, payload)
    return b'["%08x",%b\n' % (zlib.crc32(body), body)


def unframe(line: bytes, chain: int | None = None) -> Any:
    """Return what a line holds.

    :param chain: CRC of the file before the line; ``None`` checks the line alone
    :raises ValueError: it is not a line as :func:`frame` makes them, or not at this place
    """
    body = line[12:-1]
    if line[:12] != b'["%08x",' % zlib.crc32(body) or line[-1:] != b"\n":
        raise ValueError("its checksum does not match")
    if chain is not None and body[:11] != b'"%08x",' % chain:
        raise ValueError("it does not continue the line before it")
    return json.loads(body[11:-1])


def _header(generation: str) -> bytes:
    payload = b'{"journal":"flask-bandit","format":%d,"generation":"%b"}'
    return frame(payload % (FORMAT, generation.encode()), 0)


def _is_torn_header(content: bytes) -> bool:
    """Tell whether writing the first line was interrupted before its end."""
    # The checksum and the generation may be any digits: they are compared by their kind.
    sample = _header("0" * _GENERATION_DIGITS)[:-1]
    generation = range(len(sample) - 3 - _GENERATION_DIGITS, len(sample) - 3)
    return len(content) < len(sample) and all(
        got in _HEX if 2 <= at < 10 or at in generation else got == sample[at]
        for at, got in enumerate(content)
    )


def _is_complete_json(content: bytes) -> bool:
    """Tell whether a whole JSON value stands at the start; a torn line never is one."""
    try:
        json.JSONDecoder().raw_decode(content.decode("latin-1"))
    except ValueError:
        return False
    return True


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
        line, newline, _ = self._pread(4096, 0).partition(b"\n")
        if not newline:
            if _is_torn_header(line):
                self.close()
                return False
            if _header_of(line + b"\n") is None:
                raise self.corrupt("it does not begin as a journal of Flask-Bandit does")
        header = _header_of(line + b"\n")
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
        self.offset = self._chain = self._lines = 0
        self._advance(line + b"\n")
        return True

    def create(self) -> None:
        """Write the first line of a new file, under the lock.

        :raises StorageError: it cannot be written
        """
        generation = secrets.token_hex(_GENERATION_DIGITS // 2)
        try:
            fd = self._writer(os.O_CREAT)
            content = os.pread(fd, 4096, 0)
            if _header_of(content + b"\n") is not None:
                # All of it was written except the newline.
                self._append(fd, b"\n", len(content))
                return
            os.ftruncate(fd, 0)
            self._append(fd, _header(generation), 0)
            if self._fsync:
                sync_directory(self.path)
        except OSError as error:
            raise storage_error(error, self.path, "create") from error

    def size(self) -> int:
        """Return the size of the file, after checking that it is still the one that was opened.

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
            if b"\n" in tail or _is_complete_json(tail):
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

    def corrupt(self, why: str) -> StorageCorruptError:
        """Make the error for the line after the mark."""
        return StorageCorruptError(
            f"{self.path}, line {self._lines + 1} (byte {self.offset}) is not what was written:"
            f" {why}. Nothing was changed or reset. Restore the file from a backup; or, to give up"
            " this line and all that follow, stop the application, keep a copy, cut the file by"
            f" 'truncate --size={self.offset}' and remove the .json and .index files beside it."
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
        if not self._has_chain(self.offset, self._chain):
            self._inode = (0, 0)
            raise StorageCorruptError(
                f"{self.path} was replaced by another file while it was in use. Put the first one"
                " back, or restart the processes to go on with this one."
            )


def _header_of(line: bytes) -> dict[str, Any] | None:
    """Return the content of a whole first line, or ``None`` if it is not one."""
    try:
        content = unframe(line, 0)
    except ValueError:
        return None
    if isinstance(content, dict) and content.get("journal") == "flask-bandit":
        return content
    return None
