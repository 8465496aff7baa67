"""How learning from a bandit's log stands, for people and programs. Must not import Flask."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ..bandits import Bandit
from ..control import Control
from ..errors import ConfigurationError, LifecycleError
from .books import Books
from .gate import error_rate
from .judging import Judgement
from .records import Job


@dataclass(frozen=True)
class Status:
    """How learning from a bandit's log stands.

    :param champion: the model that serves; 0 for the policy of the code
    :param candidate: the model that would be judged next, ``None`` if there is none
    :param job: what is in flight
    :param is_dead: whether its process has died; then it can be resumed
    :param attempts: how many windows of held-out decisions were judged
    :param error_rate: of the next one
    :param judged_until: held-out decisions made before are used up, seconds since the epoch
    :param fresh: held-out decisions since then that can be judged
    :param effective_size: how many of the candidate's own would say as much
    :param power: chance that a candidate worth a quarter more is recognised by them
    :param obstacle: what else stands against judging it now
    """

    bandit: str
    champion: int
    candidate: int | None
    job: Job | None
    is_dead: bool
    attempts: int
    error_rate: float
    judged_until: float
    fresh: int = 0
    effective_size: float = 0.0
    power: float = 0.0
    obstacle: str = ""


def read_status(books: Books, bandit: Bandit, control: Control) -> Status:
    """Return what serves, what is under way, and what the next judgement could show."""
    index = books.read()
    try:
        candidate = books.candidate(index, None, control.model)
    except LifecycleError:
        candidate = None
    status = Status(
        bandit=books.name,
        champion=control.model,
        candidate=candidate.n if candidate else None,
        job=index.job,
        is_dead=bool(index.job and index.job.is_dead(time.time())),
        attempts=index.attempts,
        error_rate=error_rate(index.attempts + 1),
        judged_until=index.judged_until,
    )
    if candidate is None:
        return status
    try:
        seen = Judgement(books, bandit, control, index, candidate.n).look()
    except (ConfigurationError, LifecycleError) as error:  # one of the models cannot be had
        return replace(status, obstacle=str(error))
    mean, variance = candidate.reward_mean, candidate.reward_variance
    return replace(
        status,
        fresh=seen.decisions,
        effective_size=seen.effective,
        power=seen.power(mean, variance, status.error_rate),
        obstacle=seen.obstacle,
    )
