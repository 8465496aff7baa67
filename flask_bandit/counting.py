"""Which sums a decision and a reward add to, and which of them the policy learns from.

``pulls``, ``rewards``, ``reward`` and ``reward_sq`` are exact and for reports. Where the policy
shall not see them as they are, it has sums of its own beside them, told apart by a prefix:

* ``holdout:pulls`` ...: the visitors who always get the control; no policy sees these;
* ``goal:<goal>:rewards`` ...: goals that the bandit does not learn from;
* ``learn:...``: with a reward window, what decisions whose window is closed have added;
* ``eval:...``: what decisions have added that are held out for evaluation, where it would else be
  learned; the policy sees the exact sums less these, and no array has them;
* ``@<start>:...``: with a half-life, the sums of decisions made in one span of time, by its start
  in seconds since the epoch; with a reward window too, ``learn:@<start>:...``, so that a bandit
  which gets its window later learns nothing twice.

Pure: no clock, no storage.
"""

from __future__ import annotations

from collections.abc import Mapping

from .algorithms import PolicyProtocol
from .hashing import hash_share
from .model import ArmArrays, ArmCounts, ArmStats, Decision, Reward, StatsDelta
from .options import Options

HOLDOUT = "holdout:"
LEARNED = "learn:"
FOR_EVALUATION = "eval:"
BUCKET = "@"
BUCKETS_PER_HALF_LIFE = 4
_SPANS = (604800, 86400, 43200, 21600)
"""Lengths of a bucket in seconds; each divides the one before it.

Buckets stay for ever and are read with the counts, so none is shorter than a fourth of the shortest
half-life.
"""
_EVALUATED = FOR_EVALUATION + "pulls"
_FORGOTTEN = 2.0**-40
"""Weight below which a bucket is not added up any more."""


def decision_delta(policy: PolicyProtocol, options: Options, decision: Decision) -> StatsDelta:
    """Return what a new decision adds."""
    if decision.stands_for is not None:
        return StatsDelta({})
    if decision.is_held_out:
        return StatsDelta({decision.arm: {HOLDOUT + "pulls": 1}})
    pull = StatsDelta({decision.arm: {"pulls": 1}})
    if options.reward_window is not None:
        return pull
    if is_for_evaluation(options, decision):
        return _set_apart(options, pull)
    learned = _learnable(policy, decision, policy.on_decision(decision))
    prefix = _prefix(options, decision)
    return pull + _prefixed(learned, prefix) if prefix else learned


def reward_delta(
    policy: PolicyProtocol, options: Options, decision: Decision, reward: Reward
) -> StatsDelta:
    """Return what a new reward adds.

    :param decision: the reward's; all that :func:`needs_decision` asks for has to be in it
    """
    exact = {"rewards": 1, "reward": reward.value, "reward_sq": reward.value * reward.value}
    prefix = "" if reward.goal == options.goal else f"goal:{reward.goal}:"
    if decision.is_held_out:
        prefix = HOLDOUT + prefix
    if prefix:
        return StatsDelta({decision.arm: {prefix + name: n for name, n in exact.items()}})
    if options.reward_window is not None:
        late = {"late": 1} if reward.at > decision.at + options.reward_window else {}
        return StatsDelta({decision.arm: {**exact, **late}})
    if is_for_evaluation(options, decision):
        return _set_apart(options, StatsDelta({decision.arm: exact}))
    learned = _learnable(policy, decision, policy.on_reward(decision, reward.value))
    prefix = _prefix(options, decision)
    return StatsDelta({decision.arm: exact}) + _prefixed(learned, prefix) if prefix else learned


def is_for_evaluation(options: Options, decision: Decision) -> bool:
    """Return whether a decision is kept apart to judge what learned from the others.

    All decisions of a known subject are, or none; of visitors who are only a cookie, each decision
    by itself.
    """
    if options.evaluation <= 0.0:
        return False
    return hash_share(decision.subject or decision.id, "evaluation", "") < options.evaluation


def goal_stats(options: Options, row: Mapping[str, float], goal: str | None = None) -> ArmStats:
    """Return an arm's pulls with what it earned for one goal.

    :param row: the arm's sums
    :param goal: the bandit's own if left out
    """
    prefix = "" if goal in (None, options.goal) else f"goal:{goal}:"
    earned = {name: row.get(prefix + name, 0) for name in ("rewards", "reward", "reward_sq")}
    return ArmStats.from_counts({"pulls": row.get("pulls", 0), **earned})


def mature_delta(
    policy: PolicyProtocol, options: Options, decision: Decision, total: float
) -> StatsDelta:
    """Return what a decision adds when its reward window closes.

    :param total: what it earned within the window
    """
    learned = _learnable(policy, decision, policy.on_mature(decision, total))
    return _prefixed(learned, _prefix(options, decision))


def needs_decision(policy: PolicyProtocol, options: Options, decision_id: str, goal: str) -> bool:
    """Return whether a reward can only be counted with its decision as it is stored."""
    if goal != options.goal or Decision.is_id_held_out(decision_id):
        return False
    if options.reward_window is not None or options.half_life is not None:
        return True
    if options.evaluation > 0.0 or getattr(policy, "contextual", False):
        return True
    return bool(getattr(policy, "reward_needs_decision", False))


def learned_sums(options: Options, counts: ArmCounts, now: float) -> ArmCounts:
    """Return the sums that the policy learns from.

    :param counts: all sums of a bandit
    :param now: seconds since the epoch; what is older weighs less where there is a half-life
    """
    if options.reward_window is not None:
        counts = {arm: _without(row, LEARNED) for arm, row in counts.items()}
    if options.half_life is not None:
        return {arm: _discounted(row, options.half_life, now) for arm, row in counts.items()}
    if options.reward_window is None and any(_EVALUATED in row for row in counts.values()):
        return {arm: _less_evaluated(row) for arm, row in counts.items()}
    return counts


def learned_arrays(options: Options, arrays: ArmArrays) -> ArmArrays:
    """Return the arrays that the policy learns from, of all that a bandit has."""
    if options.reward_window is None:
        return arrays
    return {
        arm: {
            name.removeprefix(LEARNED): array
            for name, array in row.items()
            if name.startswith(LEARNED)
        }
        for arm, row in arrays.items()
    }


def _learnable(policy: PolicyProtocol, decision: Decision, learned: StatsDelta) -> StatsDelta:
    """Leave out terms where the context is gone, as that of a visitor who was erased.

    A term of a reward has to be of the same context as that of its decision.
    """
    is_gone = decision.context is None and getattr(policy, "contextual", False)
    return StatsDelta(learned.counts) if is_gone else learned


def _set_apart(options: Options, exact: StatsDelta) -> StatsDelta:
    """Return what a decision for evaluation adds: where all is learned, also what is not."""
    if options.half_life is not None:
        return exact
    return exact + _prefixed(exact, FOR_EVALUATION)


def _less_evaluated(row: Mapping[str, float]) -> dict[str, float]:
    apart = _without(row, FOR_EVALUATION)
    return {name: value - apart.get(name, 0) for name, value in row.items()}


def _discounted(row: Mapping[str, float], half_life: float, now: float) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in row.items():
        if not name.startswith(BUCKET):
            continue
        start, _, rest = name[1:].partition(":")
        # Not above 1, whatever the clocks of other machines say.
        weight = 0.5 ** (max(0.0, now - int(start)) / half_life)
        if weight > _FORGOTTEN:
            sums[rest] = sums.get(rest, 0.0) + weight * value
    return sums


def _without(row: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)
    }


def _bucket(half_life: float, at: float) -> str:
    span = next((s for s in _SPANS if s * BUCKETS_PER_HALF_LIFE <= half_life), _SPANS[-1])
    return f"{BUCKET}{int(at // span) * span}:"


def _prefix(options: Options, decision: Decision) -> str:
    """Return how the names of the sums begin that the policy learns from; empty: they are exact."""
    learned = "" if options.reward_window is None else LEARNED
    return (
        learned if options.half_life is None else learned + _bucket(options.half_life, decision.at)
    )


def _prefixed(delta: StatsDelta, prefix: str) -> StatsDelta:
    counts = {
        arm: {prefix + name: value for name, value in row.items()}
        for arm, row in delta.counts.items()
    }
    return StatsDelta(counts, tuple(term._replace(name=prefix + term.name) for term in delta.terms))
