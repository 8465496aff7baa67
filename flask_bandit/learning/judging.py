"""One model against the champion, on the held-out decisions that were not judged yet.

Must not import Flask.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..analysis.paired import Paired
from ..analysis.targets import Target
from ..bandits import Bandit
from ..control import Control
from .books import Books
from .data import HeldOut, LogPart, mature_until, public_features
from .gate import LIFT, Look, NotYetError, as_logged, error_rate, judge, look, served
from .records import EvaluationRecord, Index


class Judgement:
    """The next window of held-out decisions, and what two policies would have done in it.

    :param control: what operators decided now
    :param index: what is known about the models now
    :param n: the model that is judged
    :param check: called now and then; what it raises ends the reading
    :raises LifecycleError: one of the models is gone
    """

    def __init__(
        self,
        books: Books,
        bandit: Bandit,
        control: Control,
        index: Index,
        n: int,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._bandit, self._control, self._index = bandit, control, index
        self._n = n
        self._until = mature_until(bandit)
        part = LogPart(
            storage=books.storage,
            bandit=bandit,
            name=books.name,
            version=control.version,
            since=index.judged_until,
            until=self._until,
            check=check,
            share=self._share(),
        )
        self._held_out = HeldOut(part, control.model)
        self._candidate = self._served(books, n)
        drawing = control.drawing(bandit.arm_ids)
        self._champion = self._served(books, control.model) if control.model else as_logged(drawing)

    def _share(self) -> float:
        """Return the share that was held out whenever one of both was trained, and is now."""
        records = map(self._index.get, (self._n, self._control.model))
        shares = (record.held_out for record in records if record)
        return min([self._bandit.options.evaluation, *shares])

    def _served(self, books: Books, n: int) -> Target:
        drawing = self._control.drawing(self._bandit.arm_ids)
        return served(books.load_model(n), self._bandit.options, drawing)

    def look(self) -> Look:
        """Read how much the window can tell, but not what its decisions earned."""
        return look(self._held_out, self._candidate, self._champion)

    def judged(self, by: str, least: int = 0) -> EvaluationRecord:
        """Compare both; the caller has to record that the window is used up.

        :param by: who wants to know
        :param least: fewer decisions are not judged
        :raises NotYetError: the window can show nothing, and was not judged
        """
        seen = self.look()
        if seen.decisions < least:
            raise NotYetError(
                f"there are {seen.decisions:,} held-out decisions that were not judged yet, and "
                f"{least:,} are asked for. Nothing was judged; wait for more"
            )
        seen.require()
        found = judge(
            self._held_out,
            len(self._bandit.arm_ids),
            public_features(self._bandit),
            self._candidate,
            self._champion,
            error_rate(self._index.attempts + 1),
        )
        return self._record(seen, found, by)

    def _record(self, seen: Look, found: Paired, by: str) -> EvaluationRecord:
        candidate, champion, difference = found.candidate, found.champion, found.difference
        if candidate is None or champion is None or difference is None:
            raise NotYetError(" ".join(found.refusals))
        return EvaluationRecord(
            n=self._n,
            bandit_version=self._control.version,
            champion=self._control.model,
            attempt=self._index.attempts + 1,
            error_rate=found.alpha,
            since=self._index.judged_until,
            until=self._until,
            decisions=found.decisions,
            clusters=found.clusters,
            left_out=self._held_out.left_out,
            value=candidate.value,
            value_error=candidate.error,
            champion_value=champion.value,
            difference=difference.value,
            standard_error=difference.error,
            lower=found.lower,
            effective_size=found.effective,
            mean_weight=seen.mean_weight,
            mean_weight_error=seen.mean_weight_error,
            largest_weight=seen.largest_weight,
            power=found.power(LIFT * abs(champion.value)),
            at=time.time(),
            by=by,
        )
