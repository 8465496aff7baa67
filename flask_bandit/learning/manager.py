"""The face of this room: train a model from the log, judge it, deploy it if it is better.

Must not import Flask. Whatever is done here is done for all workers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..bandits import Bandit
from ..control import Control
from ..engine import Engine
from ..errors import BanditError, ConfigurationError, LifecycleError, UnknownBanditError
from ..plugins import nearest
from .backup import back_up
from .books import Books
from .data import LogPart, TrainingData, mature_until
from .fitting import fitted_document, trained
from .gate import NotYetError, obstacle
from .jobs import Choose, Lease, at_work, dead_job, stop
from .judging import Judgement
from .records import (
    DEPLOY,
    DONE,
    EVALUATE,
    REFUSED,
    REPLACED,
    ROLLED_BACK,
    TRAIN,
    EvaluationRecord,
    Index,
    Job,
    ModelRecord,
    deployed,
    valid_evaluation,
)
from .status import Status, read_status
from .trainers import Trainer, trainer_from


class HasEngine(Protocol):
    """What has an engine: a :class:`~flask_bandit.BanditMiddleware` in an app context."""

    @property
    def engine(self) -> Engine:
        """Of the app."""
        ...


@dataclass(frozen=True)
class Deployment:
    """Whether a model was deployed.

    :param why: why it was or was not, in words
    :param n: the model
    :param evaluation: what that follows from; ``None`` if nothing was judged
    :param backup: folder with everything that was stored before; empty if it was not deployed
    """

    deployed: bool
    why: str
    n: int
    evaluation: EvaluationRecord | None = None
    backup: str = ""


class ExperimentManager:
    """Learns from one bandit's log, and deploys what is better than what serves.

    :param source: the extension, in an app context; or an engine
    :param name: of the bandit
    :param backup: folder for a copy of everything before each deployment
    :param by: who does it, for the history
    :raises UnknownBanditError: no bandit has that name
    """

    def __init__(
        self,
        source: HasEngine | Engine,
        name: str,
        *,
        backup: str | Path | None = None,
        by: str = "",
    ) -> None:
        self._engine = source if isinstance(source, Engine) else source.engine
        if name not in self._engine.bandits:
            raise UnknownBanditError(
                f"there is no bandit {name!r}; {nearest(name, self._engine.bandits)}"
            )
        self._name = name
        default = getattr(source, "backup_folder", None)
        self._folder = default if backup is None else backup
        self._by = by
        self._books = Books(self._engine.storage, name)

    @property
    def _bandit(self) -> Bandit:
        return self._engine.bandits[self._name]

    def train(self, trainer: str | Trainer = "ridge", /, **params: Any) -> ModelRecord:
        """Fit a model from the log, and store it; nobody is served by it yet.

        It learns from all decisions of the bandit's version in force whose reward window is
        closed, and from none that is held out.

        :param trainer: ``ridge``, ``policy``, ``fixed``, ``vw``, the dotted path of a class, or
            an object with ``fit(data)``
        :param params: of the trainer
        :raises ConfigurationError: the bandit holds nothing out; no such trainer or parameter
        :raises LifecycleError: another job is in flight, or there is nothing to learn from
        """
        params = _as_stored(params)
        made, label = trainer_from(trainer, params)
        # An object cannot be made again by another process.
        job = {"trainer": label if isinstance(trainer, str) else "", "params": params}
        return self._train(made, label, job, None)

    def _train(
        self, trainer: Trainer, label: str, job: Mapping[str, Any], n: int | None
    ) -> ModelRecord:
        """Fit a model, under a new number if none is given."""
        self._require_share()
        control, held_out = self._books.control(), self._bandit.options.evaluation

        def choose(index: Index) -> ModelRecord:
            least = max(index.following, control.model + 1)
            return ModelRecord(
                n=self._books.free_number(least) if n is None else n,
                trainer=label,
                params=dict(job["params"]),
                parent=control.model,
                bandit_version=control.version,
                created=time.time(),
                by=self._by,
            )

        with at_work(self._books, TRAIN, choose, job) as lease:
            until = mature_until(self._bandit)
            part = LogPart(
                self._engine.storage,
                self._bandit,
                self._name,
                control.version,
                0.0,
                until,
                lease.check,
            )
            data = TrainingData(part)
            document = fitted_document(trainer, label, data)
            lease.check()
            self._books.write_model(lease.n, document)
            record = lease.finish(lambda record: trained(record, document, data, until, held_out))
        self._books.thin_out(self._books.control().model)
        return record

    def evaluate(self, n: int | None = None, *, least: int = 0) -> EvaluationRecord:
        """Judge a model by the held-out decisions that were not judged yet; they are then used up.

        :param n: the model; by default the newest one
        :param least: fewer decisions are not judged
        :raises NotYetError: they could show nothing; none is used up
        :raises LifecycleError: another job is in flight, or there is no such model
        """
        self._require_share()
        control = self._books.control()
        choose, job = self._candidate(n, control), {"least": least}
        with at_work(self._books, EVALUATE, choose, job) as lease:
            try:
                judged = self._judgement(lease, control).judged(self._by, least)
            except NotYetError:
                lease.finish(_not_judged)
                raise
            lease.finish(*_spending(judged))
        return judged

    def deploy(
        self,
        n: int | None = None,
        margin: float = 0.0,
        force: bool = False,
        *,
        least: int = 0,
    ) -> Deployment:
        """Let a model serve all visitors, if the held-out decisions show that it is better.

        If it was not judged against what serves now, or not found better, it is judged by the
        decisions that were not judged yet. Everything in the storage is saved before.

        :param n: the model; by default the newest one
        :param margin: reward per decision by which it has to be better
        :param force: deploy it whatever it is worth
        :param least: fewer held-out decisions are not judged
        :raises LifecycleError: another job is in flight, there is no such model, or the backup
            failed
        :raises ConfigurationError: the margin is no number, or the bandit holds nothing out
        """
        _require_number(margin)
        if not force:
            self._require_share()
        control, folder = self._books.control(), self._backup_folder()
        job = {"margin": margin, "force": force, "least": least}
        with at_work(self._books, DEPLOY, self._candidate(n, control), job) as lease:
            why = "" if force else self._obstacle(lease, control, margin, least)
            if why:
                record = lease.finish(lambda record: record.at(DEPLOY, REFUSED, error=why))
                return Deployment(False, why, record.n, record.evaluation)
            self._books.load_model(lease.n)
            saved = back_up(self._books, folder, lease.n, lease.check)
            lease.check()
            self._require_champion(control)
            # Before the change: if the process dies behind it, a rollback has to know.
            lease.record(lambda record: replace(record, parent=control.model, backup=str(saved)))
            self._engine.change(self._name, "deploy", lease.n, by=self._by)
            record = lease.finish(deployed, lambda index: index.moved(control.model, REPLACED))
        why = "it was forced" if force else "it is better than what served"
        return Deployment(True, why, record.n, record.evaluation, record.backup)

    def learn(
        self,
        trainer: str | Trainer = "ridge",
        /,
        *,
        margin: float = 0.0,
        least: int = 0,
        **params: Any,
    ) -> Deployment:
        """Train a model, judge it, and deploy it if it is better: all that a timer has to call.

        :param margin: reward per decision by which it has to be better
        :param least: fewer held-out decisions are not judged
        """
        _require_number(margin)
        return self.deploy(self.train(trainer, **params).n, margin, least=least)

    def rollback(self) -> int:
        """Let serve what served before the deployed model; that is 0 for the policy of the code.

        :return: what serves now; the policy of the code, if the model before is gone
        :raises LifecycleError: no model is deployed, or a deployment is in flight
        """
        control, index = self._books.control(), self._books.read()
        if not control.model:
            raise LifecycleError(
                f"no model of {self._name!r} is deployed: the policy of the code serves already"
            )
        job = index.job
        if job and job.work == DEPLOY and not job.is_dead(time.time()):
            raise LifecycleError(f"model {job.n} is being deployed in {job.holder}; stop it first")
        record = index.get(control.model)
        before = record.parent if record else 0
        if before:
            try:
                self._books.load_model(before)
            except BanditError:
                before = 0
        now = time.time()
        # Before the change: done again after a failure, it must not go back one more.
        self._books.update(
            lambda index: index.moved(control.model, ROLLED_BACK, rolled_back_at=now).moved(
                before, DONE[DEPLOY]
            )
        )
        self._engine.change(self._name, "deploy", before, by=self._by)
        return before

    def resume(self) -> ModelRecord | EvaluationRecord | Deployment:
        """Do again what a process was at when it died.

        :raises LifecycleError: no process has died at anything
        """
        job = dead_job(self._books)
        if job.work == TRAIN:
            label = job.params["trainer"]
            if not label:
                raise LifecycleError(
                    f"model {job.n} of {self._name!r} was being trained by an object of your "
                    "code's, which is gone with its process; train anew"
                )
            made, _ = trainer_from(label, job.params["params"])
            return self._train(made, label, job.params, job.n)
        if job.work == EVALUATE:
            return self.evaluate(job.n, **job.params)
        if self._books.control().model != job.n:
            return self.deploy(job.n, **job.params)
        # It died between the deployment and saying so.
        index = self._books.update(lambda index: _served_already(index, job.n))
        record = index.get(job.n)
        judged = record.evaluation if record else None
        return Deployment(True, "it serves already", job.n, judged)

    def stop(self) -> Job | None:
        """Tell the job in flight to stop, wherever it runs; it does within seconds.

        :return: the job, ``None`` if there is none
        """
        return stop(self._books)

    def models(self) -> tuple[ModelRecord, ...]:
        """Return the records of the models, the oldest first."""
        return self._books.read().serving(self._books.control().model).models

    def status(self) -> Status:
        """Return what serves, what is under way, and what the next judgement could show."""
        return read_status(self._books, self._bandit, self._books.control())

    def _obstacle(self, lease: Lease, control: Control, margin: float, least: int) -> str:
        """Return why a model is not to be deployed, judging it if that is not known."""
        record = self._books.read().get(lease.n)
        earlier = valid_evaluation(record, control)
        if earlier and not obstacle(earlier, margin):
            return ""
        try:
            judged = self._judgement(lease, control).judged(self._by, least)
        except NotYetError as error:
            return obstacle(earlier, margin) if earlier else str(error)
        lease.record(*_spending(judged))
        return obstacle(judged, margin)

    def _judgement(self, lease: Lease, control: Control) -> Judgement:
        index = self._books.read()
        return Judgement(self._books, self._bandit, control, index, lease.n, lease.check)

    def _candidate(self, n: int | None, control: Control) -> Choose:
        return lambda index: self._books.candidate(index, n, control.model)

    def _require_champion(self, before: Control) -> None:
        now = self._books.control()
        if (now.model, now.version) != (before.model, before.version):
            raise LifecycleError(
                f"{self._name!r} was reset, or another model was deployed or rolled back "
                "meanwhile; try again"
            )

    def _require_share(self) -> None:
        if self._bandit.options.evaluation <= 0.0:
            raise ConfigurationError(
                f"the bandit {self._name!r} keeps no decisions apart to judge models by; give it "
                "evaluation=0.2, or another share"
            )

    def _backup_folder(self) -> Path:
        if self._folder is None:
            raise ConfigurationError(
                "everything is saved before a model is deployed: give ExperimentManager a folder, "
                "such as backup='backups'"
            )
        return Path(self._folder)


def _require_number(margin: float) -> None:
    """Raise if a margin says nothing.

    :raises ConfigurationError: it is not finite
    """
    if not math.isfinite(margin):
        raise ConfigurationError(f"the margin is {margin}; write a number, such as 0.002")


def _as_stored(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trainer's parameters as a storage gives them back.

    :raises ConfigurationError: JSON cannot hold them
    """
    try:
        stored: dict[str, Any] = json.loads(json.dumps(params, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"a trainer's parameters are kept as JSON: {error}; write numbers, texts and lists"
        ) from None
    return stored


def _spending(judged: EvaluationRecord) -> tuple[Any, Any]:
    """Return what a judgement changes: the model's record, and the window that is used up."""

    def with_evaluation(record: ModelRecord) -> ModelRecord:
        return record.at(EVALUATE, DONE[EVALUATE], evaluation=judged)

    def spent(index: Index) -> Index:
        return replace(index, attempts=judged.attempt, judged_until=judged.until)

    return with_evaluation, spent


def _served_already(index: Index, n: int) -> Index:
    """Return what the process would have said that died after a deployment."""
    record = index.get(n)
    if record is not None:
        index = index.put(deployed(record)).moved(record.parent, REPLACED)
    return replace(index, job=None)


def _not_judged(record: ModelRecord) -> ModelRecord:
    return record.at(EVALUATE, DONE[EVALUATE] if record.evaluation else "")
