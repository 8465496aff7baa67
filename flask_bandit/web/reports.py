"""What is known about an app's bandits, as plain values: their state, their arms, their sums.

Reads a storage once and computes the rest; knows nothing of terminals and pages.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from ..bandits import Bandit
from ..control import CLOSED, DECLARED, FIRST_VERSION, PAUSED, RUNNING, Control
from ..counting import HOLDOUT
from ..drawing import DrawTable
from ..errors import UnknownBanditError
from ..model import ArmCounts, BanditKey, Counts
from ..plugins import nearest
from ..storage.base import BanditStorage
from .tally import NO_ARM, SKIPPED

GOAL = "goal:"


@dataclass(frozen=True)
class Stored:
    """A storage's counts and controls, read at one moment.

    :param bandits: those in the code
    :param now: seconds since the epoch
    """

    bandits: Mapping[str, Bandit]
    counts: Counts
    controls: Mapping[str, Control]
    now: float

    @classmethod
    def read(
        cls,
        bandits: Mapping[str, Bandit],
        storage: BanditStorage,
        timeout: float | None = None,
    ) -> Stored:
        """Read a storage.

        :param timeout: seconds for each of two readings; ``None`` waits as long as it takes
        :raises StorageError: it is down
        """
        stored = storage.read_control(timeout)
        controls = {name: Control.load(state) for name, state in stored.items()}
        return cls(dict(bandits), storage.read_counts(timeout), controls, time.time())

    @property
    def names(self) -> tuple[str, ...]:
        """All bandits: those in the code first, then those that only the storage has."""
        stored = {key.bandit for key in self.counts} | self.controls.keys()
        return (*self.bandits, *sorted(stored - self.bandits.keys()))

    def require(self, name: str) -> None:
        """Raise for a name that neither the code nor the storage has.

        :raises UnknownBanditError: with the nearest name
        """
        if name not in self.names:
            raise UnknownBanditError(f"there is no bandit {name!r}; {nearest(name, self.names)}")

    def control(self, name: str) -> Control:
        """Return what operators decided about a bandit."""
        return self.controls.get(name, Control())

    def versions(self, name: str) -> tuple[int, ...]:
        """Return the versions that exist, the oldest first."""
        counted = {key.version for key in self.counts if key.bandit == name}
        return tuple(sorted(counted | set(range(FIRST_VERSION, self.control(name).version + 1))))

    def rows(self, name: str, version: int) -> ArmCounts:
        """Return the sums of one version, by arm, without those of what was not counted."""
        rows = self.counts.get(BanditKey(name, version), {})
        return {arm: row for arm, row in rows.items() if arm != NO_ARM}


@dataclass(frozen=True)
class Summary:
    """One bandit in a list.

    :param best: the arm with the highest mean so far; ``None`` before the first reward, and where
        arms are chosen by context
    :param policy: name and parameters, or the deployed model; ``None`` if the bandit is not in the
        code
    """

    name: str
    in_code: bool
    state: str
    version: int
    winner: str | None
    decisions: int
    best: str | None
    best_mean: float | None
    policy: str | None


@dataclass(frozen=True)
class Sums:
    """Decisions and what they earned.

    :param mean: reward per pull
    :param late: rewards that came after the reward window
    """

    pulls: int
    rewards: int
    reward: float
    mean: float
    late: int

    @classmethod
    def of(cls, row: Mapping[str, float], pulls: float | None = None) -> Sums:
        """Read stored sums.

        :param pulls: of another row, for goals that the bandit does not learn from
        """
        count = int(row.get("pulls", 0) if pulls is None else pulls)
        reward = float(row.get("reward", 0.0))
        mean = reward / count if count else 0.0
        return cls(count, int(row.get("rewards", 0)), reward, mean, int(row.get("late", 0)))


@dataclass(frozen=True)
class ArmReport:
    """One arm of a version, without the visitors who are held out.

    :param weight: factor on the policy's probability; ``None``: nobody gets the arm
    :param probability: of the next new visitor's getting it; ``None`` in an older version
    :param goals: goal that the bandit does not learn from -> its sums
    """

    arm: str
    in_code: bool
    weight: float | None
    probability: float | None
    sums: Sums
    goals: Mapping[str, Sums]


@dataclass(frozen=True)
class HoldoutReport:
    """The visitors who always get the control.

    :param others_mean: reward per pull of all who are not held out
    :param lift: how much more that is than the mean of those who are
    """

    sums: Sums
    goals: Mapping[str, Sums]
    others_mean: float
    lift: float


@dataclass(frozen=True)
class Change:
    """Something that was done to a bandit, and when: ISO 8601, in UTC."""

    at: str
    what: str


@dataclass(frozen=True)
class BanditReport:
    """Everything about one version of a bandit.

    :param is_current: False for an older version, whose counts can only be read
    :param visitors: what visitors see now, in words
    :param not_counted: reason -> choices that were not counted
    :param history: what was done to the bandit, the oldest first
    """

    name: str
    in_code: bool
    state: str
    version: int
    is_current: bool
    versions: tuple[int, ...]
    winner: str | None
    visitors: str
    policy: str | None
    options: Mapping[str, Any]
    arms: tuple[ArmReport, ...]
    holdout: HoldoutReport | None
    not_counted: Mapping[str, int]
    history: tuple[Change, ...]


def policy_in_force(bandit: Bandit, control: Control) -> str:
    """Return what draws the arms, in a word: the deployed model, or the policy of the code."""
    return f"model {control.model}" if control.model else bandit.policy_version


def is_by_context(control: Control, bandit: Bandit | None) -> bool:
    """Return whether decisions may have been made by context; a deployed model may do so."""
    was_deployed = any(what.split(" ", 1)[0] == "deploy" for _, what in control.history)
    return bool(control.model) or was_deployed or (bandit is not None and bandit.is_contextual)


def summarise(stored: Stored, name: str) -> Summary:
    """Return what a list says about a bandit."""
    control, bandit = stored.control(name), stored.bandits.get(name)
    sums = {arm: Sums.of(row) for arm, row in stored.rows(name, control.version).items()}
    in_play = [
        arm
        for arm, row in sums.items()
        if row.pulls and (bandit is None or control.holds(arm, bandit.arm_ids))
    ]
    best = max(in_play, key=lambda arm: sums[arm].mean, default=None)
    # By context, the means are of those who like the arms.
    if not any(sums[arm].rewards for arm in in_play) or is_by_context(control, bandit):
        best = None
    return Summary(
        name=name,
        in_code=bandit is not None,
        state=control.state,
        version=control.version,
        winner=control.winner,
        decisions=sum(row.pulls for row in sums.values()) + _held_out(stored, name, control),
        best=best,
        best_mean=None if best is None else sums[best].mean,
        policy=None if bandit is None else policy_in_force(bandit, control),
    )


def _held_out(stored: Stored, name: str, control: Control) -> int:
    rows = stored.rows(name, control.version).values()
    return sum(int(row.get(HOLDOUT + "pulls", 0)) for row in rows)


def report(stored: Stored, name: str, version: int | None = None) -> BanditReport:
    """Return everything about a bandit.

    :param version: the one in force if left out
    :raises UnknownBanditError: no such bandit, or no such version of it
    """
    stored.require(name)
    control, bandit, versions = (
        stored.control(name),
        stored.bandits.get(name),
        stored.versions(name),
    )
    version = control.version if version is None else version
    if version not in versions:
        known = ", ".join(map(str, versions))
        raise UnknownBanditError(f"{name!r} has no version {version}; there is {known}")
    rows = stored.rows(name, version)
    skipped = stored.counts.get(BanditKey(name, version), {}).get(NO_ARM, {})
    return BanditReport(
        name=name,
        in_code=bandit is not None,
        state=control.state,
        version=version,
        is_current=version == control.version,
        versions=versions,
        winner=control.winner,
        visitors=what_visitors_see(control, bandit),
        policy=None if bandit is None else policy_in_force(bandit, control),
        options={} if bandit is None else _options(bandit),
        arms=_arms(stored, name, version),
        holdout=_holdout(rows),
        not_counted={
            reason.removesuffix(SKIPPED): int(number)
            for reason, number in sorted(skipped.items(), key=lambda item: -item[1])
            if reason.endswith(SKIPPED) and number
        },
        history=tuple(Change(moment(at), what) for at, what in control.history),
    )


def moment(at: float) -> str:
    """Return a time as ISO 8601 has it, in UTC."""
    return datetime.fromtimestamp(int(at), timezone.utc).isoformat()


def _options(bandit: Bandit) -> dict[str, Any]:
    options = {field.name: getattr(bandit.options, field.name) for field in fields(bandit.options)}
    for name in ("targeting", "context"):
        called = options[name]
        options[name] = None if called is None else getattr(called, "__qualname__", repr(called))
    features = bandit.features
    return {
        **options,
        "floor": bandit.floor,
        "goals": dict(options["goals"]),
        "features": None if features is None else features.spec(),
    }


def _arms(stored: Stored, name: str, version: int) -> tuple[ArmReport, ...]:
    control, bandit = stored.control(name), stored.bandits.get(name)
    rows = stored.rows(name, version)
    in_code = () if bandit is None else bandit.arm_ids
    gone = sorted(arm for arm in rows if arm not in in_code)
    chances: Mapping[str, float] | None = None
    # By context it is another one for each visitor.
    is_by_context = bandit is not None and (bandit.is_contextual or control.model > 0)
    if bandit is not None and version == control.version and not is_by_context:
        chances = _table(bandit, control, rows, stored.now).propensities
    return tuple(
        ArmReport(
            arm=arm,
            in_code=arm in in_code,
            weight=None if arm in control.removed else control.weights.get(arm, 1.0),
            probability=None if chances is None else chances.get(arm, 0.0),
            sums=Sums.of(rows.get(arm, {})),
            goals=_goals(rows.get(arm, {})),
        )
        for arm in (*in_code, *gone)
    )


def _table(bandit: Bandit, control: Control, rows: ArmCounts, now: float) -> DrawTable:
    """Return what the next new visitor gets: while it does not run, one arm for everybody."""
    arms = bandit.arm_ids
    if control.state == RUNNING:
        return bandit.draw_table(rows, drawing=control.drawing(arms), now=now)
    return DrawTable.certain(arms, control.common_arm(arms))


def _goals(row: Mapping[str, float]) -> dict[str, Sums]:
    goals: dict[str, dict[str, float]] = {}
    for name, value in row.items():
        if name.startswith(GOAL):
            # A goal's name may hold colons; that of a sum may not.
            goal, _, sum_ = name.removeprefix(GOAL).rpartition(":")
            goals.setdefault(goal, {})[sum_] = value
    pulls = row.get("pulls", 0)
    return {goal: Sums.of(goals[goal], pulls) for goal in sorted(goals)}


def _holdout(rows: ArmCounts) -> HoldoutReport | None:
    held_out: dict[str, float] = {}
    for row in rows.values():
        for name, value in row.items():
            if name.startswith(HOLDOUT):
                plain = name.removeprefix(HOLDOUT)
                held_out[plain] = held_out.get(plain, 0) + value
    if not held_out:
        return None
    sums, others = Sums.of(held_out), _mean(rows.values())
    return HoldoutReport(sums, _goals(held_out), others, others - sums.mean)


def _mean(rows: Iterable[Mapping[str, float]]) -> float:
    sums = [Sums.of(row) for row in rows]
    pulls = sum(row.pulls for row in sums)
    return sum(row.reward for row in sums) / pulls if pulls else 0.0


def what_visitors_see(control: Control, bandit: Bandit | None) -> str:
    """Return in one clause what visitors of a bandit get now."""
    if bandit is None:
        return "it is not in the code, so nobody sees it"
    arms = bandit.arm_ids
    arm = control.common_arm(arms)
    if control.state == RUNNING:
        return _what_new_visitors_get(control, bandit)
    if control.state == CLOSED and bandit.is_sticky:
        return f"visitors keep their arms, and new ones get {arm!r}, the control, uncounted"
    if control.state in (PAUSED, CLOSED) or control.winner is None:
        why = "the control"
    elif control.winner == arm:
        why = "the winner"
    else:
        why = f"the control, since the winner {control.winner!r} is not in the code"
    ending = ", and nothing is counted" if control.state in (PAUSED, CLOSED, DECLARED) else ""
    return f"everybody gets {arm!r}, {why}{ending}"


def _what_new_visitors_get(control: Control, bandit: Bandit) -> str:
    drawing = control.drawing(bandit.arm_ids)
    policy = policy_in_force(bandit, control)
    who = "new visitors get" if bandit.is_sticky else "each choice gives"
    if drawing is None:
        rest = ", and the others keep theirs" if bandit.is_sticky else ""
        return f"{who} an arm by {policy}{rest}"
    named = [
        repr(arm) if weight == 1.0 else f"{arm!r} (weight {weight:g})"
        for arm, weight in drawing.items()
    ]
    parts = [f"{who} {' or '.join(named)} by {policy}"]
    for arm in bandit.arm_ids if bandit.is_sticky else ():
        if arm in control.removed:
            parts.append(f"visitors of {arm!r} get another arm")
        elif arm not in drawing:
            parts.append(f"visitors of {arm!r} keep it")
    return "; ".join(parts)
