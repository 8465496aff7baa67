"""What the statistics say about one version of a bandit, as plain values.

One source for the dashboard, the command line, the debug panel and the API. Pure: no storage, no
clock, no Flask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

POSTERIOR, SEQUENCE, REGION, NOT_YET = "posterior", "sequence", "region", "not yet"
"""Where an interval comes from: a Bayesian posterior; a confidence sequence from the logged
propensities; a joint confidence region of steady rates; nothing that could be trusted."""
WEIGHTED = "weighted"
"""From decisions that count one over their probability; it holds for a single look."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where the truth lies, each in reward (per decision, or in all).

    :param level: such as 0.95
    :param method: one of the words above
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One line of the leaderboard.

    Of a bandit that chooses by context, ``mean`` and all that follows are about showing the arm to
    everybody: what it earned itself says little, since it is shown to those who like it.

    :param mean: reward per pull, with its posterior interval, or reward per decision if everybody
        got the arm; ``None`` before the first pull
    :param p_best: posterior probability that no arm is better; ``None`` where nothing is known
    :param expected_loss: reward per decision that is lost on average if this arm is chosen and
        another one is better
    :param p_beats_control: posterior probability; ``None`` for the control itself
    :param share: of the pulls
    """

    arm: str
    is_control: bool
    pulls: int
    rewards: int
    reward: float
    share: float
    mean: Interval | None
    p_best: float | None
    expected_loss: float | None
    p_beats_control: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to make of it, in one sentence.

    :param state: ``empty``, ``undecided``, ``decided``, ``declared``, ``alike`` (would need too
        many visitors to tell), or ``untestable`` (no test holds for this bandit; the sentence says
        what to change)
    :param leader: the arm that is best so far, or the declared one
    :param method: :data:`SEQUENCE`, :data:`REGION` or :data:`NOT_YET`
    :param more: about how many more visitors a decision needs if all goes on as it is
    """

    state: str
    sentence: str
    leader: str | None
    p_best: float | None
    method: str
    more: int | None

    @property
    def is_decided(self) -> bool:
        """True if an anytime-valid test at 5 % says which arm is best."""
        return self.state == "decided"


@dataclass(frozen=True, slots=True)
class Twin:
    """What one arm for everybody would have earned, beside what choosing by context did.

    The twin shows each arm with the probability that it is the best one for everybody.

    :param best: the arm that it would show most
    :param earned: reward per decision, as it was
    :param value: the twin's; the interval is where the best arm's reward per decision lies
    :param difference: ``earned`` less ``value``; above 0 where choosing by context was worth it
    :param left_out: arms with too few rewards to be compared
    :param sentence: what to make of it
    """

    best: str
    earned: float
    value: Interval
    difference: Interval
    left_out: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much more one arm earns per decision than another."""

    arm: str
    other: str
    difference: Interval


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """Whether arms were shown as often as their logged probabilities say.

    :param expected: arm -> sum of its logged probabilities
    :param shown: arm -> decisions
    :param p_value: of the chi-squared statistic with ``dof`` degrees of freedom; ``None`` where
        there is too little to say
    """

    expected: Mapping[str, float]
    shown: Mapping[str, int]
    statistic: float
    dof: int
    p_value: float | None

    @property
    def is_alarm(self) -> bool:
        """True if so large a mismatch comes by chance less than once in 1000 times."""
        return self.p_value is not None and self.p_value < 0.001


@dataclass(frozen=True, slots=True)
class ArmPoint:
    """One arm in one span of time; only the decisions of that span.

    :param share: of the span's decisions, 0 to 1
    :param rate: reward per pull with its posterior interval, together with neighbouring spans where
        the arm has few pulls; ``None`` without pulls
    :param p_best: posterior probability at the end of the span, from all decisions until then
    :param probability: mean of the logged probabilities; ``None`` where none is known
    """

    pulls: int
    rewards: int
    reward: float
    share: float
    rate: Interval | None
    p_best: float | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """A span of time, in seconds since the epoch, and what each arm did in it.

    :param rolling: reward per decision of all arms in this span and those just before it, for a
        bandit that chooses by context
    """

    start: float
    end: float
    decisions: int
    arms: Mapping[str, ArmPoint]
    rolling: Interval | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that the statistics say about one version of a bandit.

    :param arms: the best first: by mean, arms without pulls last
    :param is_binary: each decision earned 0 or 1
    :param gained: reward over all decisions beyond what an equal split between the arms would have
        earned; ``None`` where it cannot be estimated yet
    :param why_no_gain: then why, and what would help
    :param contrasts: each arm against the control, as far as can be told
    :param series: spans of time, the oldest first
    :param logged: decisions that the log has with their details
    :param unknown: those among them whose probabilities are not known
    :param missing: rewards that are counted and that the log's reading has not seen: they came
        late, or the details of their decisions were pruned
    :param twin: of a bandit that chooses by context; ``None`` where it is not known yet
    :param why_no_twin: then why; empty for other bandits
    """

    arms: tuple[ArmResult, ...]
    is_binary: bool
    verdict: Verdict
    gained: Interval | None
    why_no_gain: str
    contrasts: tuple[Contrast, ...]
    ratio: RatioCheck | None
    series: tuple[Point, ...]
    logged: int
    unknown: int
    missing: int
    twin: Twin | None = None
    why_no_twin: str = ""
