"""Everything that a reader of one bandit's results is shown, from one reading of the storage.

The dashboard, ``flask bandit show`` and ``report``, and the debug panel read it here. Knows nothing
of terminals and HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..analysis.digest import Digest
from ..analysis.results import Results
from ..control import Control, lifetime
from ..counting import goal_stats
from ..errors import ConfigurationError
from ..learned import model_key
from ..learning.gate import obstacle
from ..learning.records import DEPLOY, REFUSED, Index, Job, ModelRecord, valid_evaluation
from ..model import ArmCounts, BanditKey
from ..options import Options
from ..plugins import import_object
from .reports import BanditReport, Stored, is_by_context, report
from .state import AppState

MOST_UNREAD = 20_000
"""Decisions of the log that a page of one bandit waits for, if they are new."""
MOST_UNREAD_EACH = 2_000
"""The same for each bandit of a list."""
_READING = "flask_bandit.analysis.reading"


@dataclass(frozen=True)
class Mark:
    """Something that was done to the bandit, to be marked on charts.

    :param at: seconds since the epoch
    :param what: such as ``pause by ann``
    """

    at: float
    what: str


@dataclass(frozen=True)
class Models:
    """What was learned from a bandit's log, and what draws the arms now.

    :param serving: number of the deployed model; 0 for the policy of the code
    :param records: of the models, the oldest first
    :param job: what is in flight
    :param accepted: numbers of the models that were judged to be better than what serves
    """

    serving: int = 0
    records: tuple[ModelRecord, ...] = ()
    job: Job | None = None
    accepted: tuple[int, ...] = ()

    @property
    def before(self) -> int:
        """What served before the deployed model; 0 for the policy of the code."""
        record = self.get(self.serving)
        return record.parent if record else 0

    def get(self, n: int) -> ModelRecord | None:
        """Return a model's record."""
        return next((each for each in self.records if each.n == n), None)


@dataclass(frozen=True)
class BanditPage:
    """One version of a bandit: its state, its statistics, and how far they reach.

    :param results: ``None`` where the extra ``analysis`` is not installed
    :param why_no_results: then what to install
    :param marks: the oldest first
    :param unread: decisions that are counted and whose log has not been read yet; the charts and
        tests lack them, the leaderboard does not
    :param read_at: seconds since the epoch
    :param by_context: its arms are or were chosen by context, so the statistics are about showing
        each arm to everybody
    :param models: ``None`` for a bandit without features, and in a list
    """

    report: BanditReport
    results: Results | None
    why_no_results: str
    marks: tuple[Mark, ...]
    unread: int
    read_at: float
    by_context: bool = False
    models: Models | None = None


def read_page(
    state: AppState, name: str, version: int | None = None, most: int | None = MOST_UNREAD
) -> BanditPage:
    """Read a storage, and return what there is to say about a bandit.

    :param version: the one in force if left out
    :param most: if more decisions than that were not read before, others read them meanwhile, and
        the page is without them; ``None`` waits for all
    :raises UnknownBanditError: no such bandit, or no such version of it
    :raises StorageError: the storage is down
    """
    reader = _Reader(state)
    page = reader.page(name, version, most)
    control, bandit = reader.stored.control(name), reader.stored.bandits.get(name)
    is_learning = control.model or (bandit is not None and bandit.features is not None)
    if not page.report.is_current or not is_learning:
        return page
    return replace(page, models=_models(state, name, control))


def read_models(state: AppState, name: str) -> Models:
    """Read a storage, and return what was learned from a bandit's log.

    :raises StorageError: the storage is down
    """
    stored = state.storage.read_control(state.config.storage_timeout)
    return _models(state, name, Control.load(stored.get(name)))


def _models(state: AppState, name: str, control: Control) -> Models:
    stored = state.storage.read_digest(model_key(name, 0), state.config.storage_timeout)
    index = Index.load(stored.state if stored else None)
    return Models(
        serving=control.model,
        records=index.models,
        job=index.job,
        accepted=tuple(each.n for each in index.models if _is_accepted(each, control)),
    )


def _is_accepted(record: ModelRecord, control: Control) -> bool:
    judged = valid_evaluation(record, control)
    if judged is None or record.n == control.model or record.states.get(DEPLOY) == REFUSED:
        return False
    return not obstacle(judged)


def read_pages(state: AppState) -> Iterator[BanditPage]:
    """Read a storage, and yield what there is to say about each bandit; without series.

    :raises StorageError: the storage is down
    """
    reader = _Reader(state)
    for name in reader.stored.names:
        yield reader.page(name, None, MOST_UNREAD_EACH, with_series=False)


class _Reader:
    """A storage's counts and controls at one moment, and what follows from them."""

    def __init__(self, state: AppState) -> None:
        self._digester = state.digester
        self.stored = Stored.read(state.bandits, state.storage, state.config.storage_timeout)

    def page(
        self, name: str, version: int | None, most: int | None, with_series: bool = True
    ) -> BanditPage:
        """Return the page of a bandit."""
        stored = self.stored
        found, control = report(stored, name, version), stored.control(name)
        key = BanditKey(name, found.version)
        by_context = is_by_context(control, self.stored.bandits.get(name))
        rows = stored.rows(name, found.version)
        reading = self._digester.read(key, rows, control, most)
        results, why = None, ""
        try:
            results = self._results(found, rows, reading.digest, by_context, with_series)
        except ConfigurationError as error:  # the extra is not installed
            why = str(error)
        return BanditPage(
            report=found,
            results=results,
            why_no_results=why,
            marks=_marks(control, found.version),
            unread=reading.unread,
            read_at=stored.now,
            by_context=by_context,
        )

    def _results(
        self,
        found: BanditReport,
        rows: ArmCounts,
        digest: Digest,
        by_context: bool,
        with_series: bool,
    ) -> Results:
        question = import_object(f"{_READING}:Question", "analysis")
        read_results = import_object(f"{_READING}:read_results", "analysis")
        bandit = self.stored.bandits.get(found.name)
        options = Options() if bandit is None else bandit.options
        control = self.stored.control(found.name)
        stats = {each.arm: goal_stats(options, rows.get(each.arm, {})) for each in found.arms}
        asked = question(
            arms=_in_play(found, control),
            is_once=options.mode(options.goal) == "once",
            window=options.reward_window,
            winner=control.winner if found.is_current else None,
            by_context=by_context,
        )
        results: Results = read_results(stats, digest, asked, with_series=with_series)
        return results


def _in_play(found: BanditReport, control: Control) -> tuple[str, ...]:
    """Return the arms that are compared, the control first.

    What the code and the operators say now holds for the version in force only. In an older one,
    and where the code has no bandit, it is the arms that were shown.
    """
    if found.is_current and found.in_code:
        arms = tuple(each.arm for each in found.arms if each.in_code)
        return tuple(arm for arm in arms if arm not in control.removed) or arms
    return tuple(each.arm for each in found.arms if each.sums.pulls)


def _marks(control: Control, version: int) -> tuple[Mark, ...]:
    """Return what was done to one version, from the reset that began it to that which ended it."""
    began, ended = lifetime(control, version)
    return tuple(
        Mark(at, what)
        for at, what in control.history
        if began <= at and (ended is None or at <= ended)
    )
