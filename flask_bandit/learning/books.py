"""Keeps a bandit's models and what is known about them in the storage, beside its counts.

The index changes by compare-and-swap only, so any number of processes may write. Must not import
Flask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..control import Control
from ..errors import ConfigurationError, LifecycleError, StorageError
from ..learned import model_key
from ..plugins import model_from
from ..storage.base import BanditStorage
from .records import Index, ModelRecord

PATIENCE = 30.0
"""Seconds that one call of the storage may take; nobody waits for a page meanwhile."""
ATTEMPTS = 50
MOST_RECORDS = 50
"""Records that are kept, and the models with them."""


class Books:
    """The models of one bandit.

    :param name: of the bandit
    """

    def __init__(self, storage: BanditStorage, name: str) -> None:
        self.storage = storage
        self.name = name

    def read(self) -> Index:
        """Return what is known.

        :raises StorageError: the storage is down
        """
        stored = self.storage.read_digest(model_key(self.name, 0), PATIENCE)
        return Index.load(stored.state if stored else None)

    def control(self) -> Control:
        """Return what operators decided about the bandit, as it is stored now.

        :raises StorageError: the storage is down
        """
        return Control.load(self.storage.read_control(PATIENCE).get(self.name))

    def update(self, change: Callable[[Index], Index]) -> Index:
        """Change what is known, and return it.

        :param change: called again if somebody else was faster; what it raises comes out
        :raises StorageError: the storage is down
        """
        key = model_key(self.name, 0)
        for _ in range(ATTEMPTS):
            stored = self.storage.read_digest(key, PATIENCE)
            index = Index.load(stored.state if stored else None)
            changed = change(index)
            revision = stored.revision if stored else 0
            if changed == index or self.storage.write_digest(
                key, changed.dump(), revision, PATIENCE
            ):
                return changed
        raise StorageError(f"the models of {self.name!r} are changed by others all the time")

    def free_number(self, least: int) -> int:
        """Return a number under which no model was ever stored.

        Also after the index was lost: workers that serve a model do not read it again.
        """
        while self.storage.read_digest(model_key(self.name, least), PATIENCE) is not None:
            least += 1
        return least

    def write_model(self, n: int, document: Mapping[str, Any]) -> None:
        """Store a model.

        :raises StorageError: the storage is down, or it holds what JSON cannot represent
        """
        key = model_key(self.name, n)
        is_written = False
        while not is_written:
            stored = self.storage.read_digest(key, PATIENCE)
            revision = stored.revision if stored else 0
            is_written = self.storage.write_digest(key, document, revision, PATIENCE)

    def read_document(self, n: int) -> Mapping[str, Any]:
        """Return what is stored of a model.

        :raises LifecycleError: it is gone
        """
        stored = self.storage.read_digest(model_key(self.name, n), PATIENCE)
        if stored is None or not stored.state:
            raise LifecycleError(
                f"the storage does not have model {n} of {self.name!r}; train another, or roll "
                "back if it is the one that serves"
            )
        return stored.state

    def load_model(self, n: int) -> Any:
        """Return a fitted policy as it was stored.

        :raises LifecycleError: it is gone
        :raises ConfigurationError: what it needs is not installed, or it cannot be read
        """
        return loaded(self.read_document(n), f"model {n} of {self.name!r}")

    def thin_out(self, champion: int) -> None:
        """Let go of the oldest models if there are too many, but of none that may serve again."""
        gone: list[int] = []

        def thin(index: Index) -> Index:
            serving = index.get(champion)
            kept = {champion, serving.parent if serving else 0, index.job.n if index.job else 0}
            spare = [each.n for each in index.models if each.n not in kept]
            gone[:] = spare[: max(0, len(index.models) - MOST_RECORDS)]
            return index.without(gone)

        self.update(thin)
        for n in gone:
            self.write_model(n, {})

    def candidate(self, index: Index, n: int | None, champion: int) -> ModelRecord:
        """Return the record of a trained model.

        :param n: by default the newest, if it is newer than the champion and was not taken back

        :raises LifecycleError: there is none
        """
        if n is None:
            fit = [
                each
                for each in index.models
                if each.is_trained and each.n > champion and each.rolled_back_at is None
            ]
            if not fit:
                raise LifecycleError(
                    f"{self.name!r} has no trained model that is newer than what serves; train one"
                )
            return fit[-1]
        record = index.get(n)
        if record is None or not record.is_trained:
            known = ", ".join(str(each.n) for each in index.models if each.is_trained)
            raise LifecycleError(
                f"{self.name!r} has no trained model {n}; trained: {known or 'none'}"
            )
        if n == champion:
            raise LifecycleError(f"model {n} of {self.name!r} is deployed already")
        return record


def loaded(document: Mapping[str, Any], what: str) -> Any:
    """Return the fitted policy of a document.

    :param what: what an error calls it
    :raises ConfigurationError: what it needs is not installed, or it cannot be read
    """
    try:
        return model_from(document)
    except ConfigurationError:
        raise
    except Exception as error:  # whatever a class of the app's raises
        raise ConfigurationError(
            f"{what} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
