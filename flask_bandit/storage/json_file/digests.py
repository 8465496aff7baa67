"""Summaries of the log for dashboards: not in the journal, each in a file that is replaced.

One that is lost is made anew, so whatever is not as it was written is no digest, and no error.
Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from ...model import BanditKey
from ..base import StoredDigest
from ..files import storage_error, write_atomically
from .checkpoint import FORMAT, seal, unseal
from .journal import Mark


class Digests:
    """A directory with a file for each version of a bandit; it is made when it is needed.

    :param folder: the directory, beside the journal
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find(self, key: BanditKey) -> dict[str, Any] | None:
        """Return what is kept for a clean key, of whatever journal it was made."""
        try:
            with open(self._path(key), "rb") as file:
                document = unseal(file.read())
        except OSError:
            return None
        if document is None or (document.get("bandit"), document.get("version")) != key:
            return None
        return document

    def replace(self, key: BanditKey, text: str, revision: int, mark: Mark) -> bool:
        """Keep a digest over that of a revision, under the lock; tell whether it was there.

        :param text: the state as JSON
        :param mark: the end of the journal
        :raises StorageError: it cannot be written; the old one is untouched
        """
        found = digest_of(self.find(key), mark)
        if (0 if found is None else found.revision) != revision:
            return False
        head = {
            "format": FORMAT,
            "bandit": key.bandit,
            "version": key.version,
            "journal": mark.generation,
            "lines": mark.lines,
            "revision": revision + 1,
        }
        path = self._path(key)
        try:
            os.makedirs(self._folder, exist_ok=True)
            # What a power failure leaves of it has another checksum.
            write_atomically(path, seal(f'{json.dumps(head)[:-1]},\n"state": {text}'), fsync=False)
        except OSError as error:
            raise storage_error(error, path, "write") from error
        return True

    def _path(self, key: BanditKey) -> str:
        # Names may be longer than a file's, and may differ in what file systems do not tell apart.
        name = hashlib.sha256(key.bandit.encode()).hexdigest()[:32]
        return os.path.join(self._folder, f"{name}-{key.version}.json")


def digest_of(document: dict[str, Any] | None, mark: Mark) -> StoredDigest | None:
    """Return the digest in a document, if it was made of this journal as far as it goes.

    :param mark: a place in the journal that was reached after the document was read
    """
    if (
        document is None
        or document["journal"] != mark.generation
        # In lines, since pruning changes their lengths but not their number.
        or document["lines"] > mark.lines
    ):
        return None
    return StoredDigest(document["revision"], document["state"])
