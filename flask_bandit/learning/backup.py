"""Everything in the storage as files, before a model is deployed, and how models come back.

Must not import Flask.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

from ..errors import LifecycleError, StorageError
from ..storage.base import BanditStorage
from ..storage.transfer import write_export
from .books import Books
from .records import Index

EXPORT, MODELS = "export.jsonl.gz", "models.json.gz"
_BLOCK = 1 << 20


def back_up(books: Books, folder: Path, n: int, check: Callable[[], object]) -> Path:
    """Write a new folder with the storage's export and the bandit's models, and read it again.

    It gets its name when all of it is on the disk.

    :param folder: where it is made
    :param n: the model that is going to be deployed
    :param check: called now and then; what it raises ends it
    :return: the new folder
    :raises LifecycleError: it cannot be written, or not be read back
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    label = re.sub(r"[^A-Za-z0-9_-]", "_", books.name)
    name = f"{stamp}-{label}-before-model-{n}"
    part: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(".part", f"{name}.", folder))
        _write_export(books, part / EXPORT, check)
        _write_models(books, part / MODELS)
        for file in (part / EXPORT, part / MODELS):
            _read_back(file)
        target = _free(folder, name)
        part.rename(target)
    except (OSError, EOFError, zlib.error) as error:
        raise LifecycleError(
            f"the backup in {folder} failed, so nothing was deployed: {error}; make room there, or "
            "name another folder"
        ) from error
    except StorageError as error:
        raise LifecycleError(f"the backup failed, so nothing was deployed: {error}") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return target


def restore_models(storage: BanditStorage, file: str | Path) -> int:
    """Bring a bandit's models back from a backup, with all that is known about them.

    How many windows were judged, and up to when, comes back too: a lost count would let held-out
    decisions be judged twice. What serves is not changed.

    :param file: the ``models.json.gz`` of a backup
    :return: how many models there are
    :raises LifecycleError: the storage knows models of the bandit already, or the file is none
    """
    try:
        stored = json.loads(gzip.decompress(Path(file).read_bytes()))
        name, index = stored["bandit"], replace(Index.load(stored["index"]), job=None)
        models = {int(n): document for n, document in stored["models"].items()}
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError) as error:
        raise LifecycleError(
            f"{file} is no {MODELS} of a backup: {type(error).__name__}: {error}"
        ) from error
    books = Books(storage, name)

    def restored(present: Index) -> Index:
        if present != Index():
            raise LifecycleError(
                f"the storage knows models of {name!r} already; restore into one that has none"
            )
        return index

    restored(books.read())
    for n, document in models.items():
        books.write_model(n, document)
    books.update(restored)
    return len(models)


def _free(folder: Path, name: str) -> Path:
    """Return a path that is not there: several backups may be made in one second."""
    names = (name if count == 1 else f"{name}-{count}" for count in itertools.count(1))
    return next(path for path in (folder / each for each in names) if not path.exists())


def _write_export(books: Books, file: Path, check: Callable[[], object]) -> None:
    with open(file, "wb", opener=_private) as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as output:
            write_export(books.storage, cast(IO[bytes], output), lambda count: check())
        _settle(raw.fileno(), raw.flush)


def _write_models(books: Books, file: Path) -> None:
    index = books.read()
    stored = {
        "bandit": books.name,
        "index": index.dump(),
        "models": {
            str(record.n): dict(books.read_document(record.n))
            for record in index.models
            if record.is_trained
        },
    }
    with open(file, "wb", opener=_private) as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as output:
            output.write(json.dumps(stored).encode())
        _settle(raw.fileno(), raw.flush)


def _private(path: str, flags: int) -> int:
    """Open a file that nobody else may read, also where the folder is another's."""
    return os.open(path, flags, 0o600)


def _settle(number: int, flush: Callable[[], object]) -> None:
    flush()
    os.fsync(number)


def _read_back(file: Path) -> None:
    """Read a file to its end, which checks its sum."""
    with gzip.open(file) as content:
        while content.read(_BLOCK):
            pass
