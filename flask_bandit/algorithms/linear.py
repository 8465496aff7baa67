"""Contextual policies: for each arm a linear model of its reward, and four ways to choose by it.

What they learn are sums, so any storage adds them up, and all workers agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..features import Features
from ..model import Decision, FloatArray, Stats, StatsDelta, Term
from .base import Policy, uniform, with_floor
from .linear_model import LinearModel, array_names
from .winning import normal_posteriors, winning_probabilities

MAX_COLUMNS = 256
"""Of an arm's sums, (columns + 1)^2 / 2 numbers are kept and read."""
_TIE = 1e-9
_LARGEST = 1e9


class PreparedLinear:
    """A linear policy with its models fitted to statistics: what a snapshot keeps.

    :meth:`learn` keeps it up to date without a storage, at a small part of the cost of fitting.
    """

    def __init__(self, policy: LinearPolicy, stats: Stats) -> None:
        self.policy = policy
        self.model = LinearModel(policy.features, policy.ridge, stats)

    def propensities(self, context: Mapping[str, Any] | None) -> FloatArray:
        """Return one probability per arm, shape (K,), summing to 1."""
        return self.propensities_at(self.model.vector(context))

    def propensities_at(self, y: FloatArray) -> FloatArray:
        """Return the same for a context that was encoded by ``model.vector``."""
        return self.policy.choose(self.model, self.model.standardised(y))

    def learn(self, delta: StatsDelta) -> None:
        """Add what the policy's ``on_decision``, ``on_reward`` or ``on_mature`` returned.

        Nothing else is to be done: the counts and the terms are both in it. Deltas of other arms
        are passed over.
        """
        self.model.learn(delta)


class LinearPolicy(Policy):
    """Base class: separate ("disjoint") ridge regressions of the arms' rewards on the features.

    Suits a reward that more or less adds up from the features; where they do not matter, a policy
    without context learns faster. A decision without reward is an observation of 0. The sums of an
    arm are described at :class:`~flask_bandit.algorithms.linear_model.LinearModel`.

    :param features: a spec, see :class:`~flask_bandit.features.Features`
    :param ridge: how many decisions' worth of doubt, above 0
    :raises ConfigurationError: a spec or a number that cannot be meant, or too many columns
    """

    contextual = True
    reward_needs_decision = True
    arrays: tuple[tuple[str, int], ...]
    """Name and length of each array of sums; they arrive as ``stats.arrays[name]``."""

    def __init__(self, features: Features | Mapping[str, Any], *, ridge: float = 1.0) -> None:
        self.features = Features.parse(features)
        if self.features.dimension > MAX_COLUMNS:
            raise ConfigurationError(
                f"the features make {self.features.dimension} columns, and a linear policy takes "
                f"at most {MAX_COLUMNS}; declare fewer categories or hashed columns"
            )
        self.ridge = _positive("ridge", ridge)
        size = self.features.dimension + 1
        products, sums = array_names(self.features)
        self.arrays = ((products, size * (size + 1) // 2), (sums, size))

    def choose(self, model: LinearModel, z: FloatArray) -> FloatArray:
        """Return one probability per arm, shape (K,).

        :param z: the context, standardised as the model needs it
        """
        raise NotImplementedError

    def prepare(self, stats: Stats) -> PreparedLinear:
        """Fit the models once, for many contexts."""
        return PreparedLinear(self, stats)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per arm, shape (K,), summing to 1."""
        return self.prepare(stats).propensities(context)

    def on_decision(self, decision: Decision) -> StatsDelta:
        """Return one pull, and y yT; the pull alone where the decision's context was pruned."""
        return self._with_term(super().on_decision(decision), decision, None)

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        """Return the reward's counts, and r y; the counts alone where the context was pruned."""
        return self._with_term(super().on_reward(decision, value), decision, value)

    def params(self) -> dict[str, Any]:
        """Return the constructor's parameters, the features by their hash."""
        own = {name: value for name, value in vars(self).items() if name != "arrays"}
        return {**own, "features": self.features.schema}

    def _with_term(self, counts: StatsDelta, decision: Decision, value: float | None) -> StatsDelta:
        if decision.is_pruned:
            return counts
        y = (1.0, *self.features.encode(decision.context).tolist())
        (products, _), (sums, _) = self.arrays
        if value is None:
            term = Term(decision.arm, products, y, outer=True)
        else:
            term = Term(decision.arm, sums, tuple(value * number for number in y))
        return StatsDelta(counts.counts, (term,))


class LinThompsonPolicy(LinearPolicy):
    """Thompson sampling over linear models: each arm with the probability that it is the best here.

    Posterior of an arm's expected reward at z: normal, with mean zT theta and deviation
    scale s sqrt(zT A^-1 z). s is the deviation of what the regressions leave of the rewards, all
    arms together, with one more observation that varies as all rewards do. While all rewards are
    equal, or there are none, every arm has the same probability. For rewards of any unit. The one
    to start with: late rewards do it little harm, since it goes on spreading its choices.

    Regret O(d^1.5 sqrt(T)), up to logarithms, for a larger scale (Agrawal and Goyal 2013,
    "Thompson sampling for contextual bandits with linear payoffs"); half the deviation is what
    Chapelle and Li 2011 found to earn more, "An empirical evaluation of Thompson sampling".

    :param scale: 1 draws from the posterior; less explores less; above 0
    """

    name = "lin_thompson"

    def __init__(
        self, features: Features | Mapping[str, Any], scale: float = 0.5, *, ridge: float = 1.0
    ) -> None:
        super().__init__(features, ridge=ridge)
        self.scale = _positive("scale", scale)

    def choose(self, model: LinearModel, z: FloatArray) -> FloatArray:
        """Return each arm's probability of having the largest reward, exact to 1e-3."""
        deviation = model.residual_deviation
        if len(model.arms) == 1 or deviation == 0.0:
            return uniform(len(model.arms))
        mean = model.means(z) / deviation
        scale = self.scale * np.sqrt(model.variances(z))
        # Of narrower ones, floats could not tell the left half from the right.
        narrowest = 1e-9 * max(float(np.abs(mean).max()), float(scale.max()))
        return winning_probabilities(normal_posteriors(mean, np.maximum(scale, narrowest)))


class LinUCBPolicy(LinearPolicy):
    """The largest zT theta + alpha sqrt(zT A^-1 z), ties shared, for rewards of about 0 to 1.

    Between two updates it chooses the same arm for the same context, so it suffers where rewards
    come late, and its log tells little of the other arms. Li, Chu, Langford and Schapire 2010, "A
    contextual-bandit approach to personalized news article recommendation", algorithm 1; regret
    O(sqrt(d T)), up to logarithms, for a variant (Chu, Li, Reyzin and Schapire 2011).

    :param alpha: weight of what is not known, in units of the reward, at least 0
    """

    name = "lin_ucb"

    def __init__(
        self, features: Features | Mapping[str, Any], alpha: float = 0.25, *, ridge: float = 1.0
    ) -> None:
        super().__init__(features, ridge=ridge)
        if not _is_number(alpha) or not 0.0 <= alpha < _LARGEST:
            raise ConfigurationError(f"alpha is {alpha!r}; write a number from 0, such as 0.25")
        self.alpha = float(alpha)

    def choose(self, model: LinearModel, z: FloatArray) -> FloatArray:
        """Return 1 for the arm with the largest upper bound."""
        bounds = np.sqrt(model.variances(z))
        bounds *= self.alpha
        bounds += model.means(z)
        return _best(bounds)


class SquareCBPolicy(LinearPolicy):
    """Probabilities that fall with the gap to the best arm, and are never 0.

    p = 1 / (K + gamma sqrt(n) gap) for all but the best arm, which has the rest; n is the number
    of decisions so far, a gap the difference of two expected rewards, of about 0 to 1. Its log is
    good to evaluate other policies from. Foster and Rakhlin 2020, "Beyond UCB: optimal and
    efficient contextual bandits with regression oracles"; regret O(sqrt(K T R)), R being the
    regret of the regression.

    :param gamma: how fast it stops exploring, above 0; 10 to 100 does in most cases
    """

    name = "square_cb"

    def __init__(
        self, features: Features | Mapping[str, Any], gamma: float = 30.0, *, ridge: float = 1.0
    ) -> None:
        super().__init__(features, ridge=ridge)
        self.gamma = _positive("gamma", gamma)

    def choose(self, model: LinearModel, z: FloatArray) -> FloatArray:
        """Return the closed form; arms that are equally good share the rest."""
        means = model.means(z)
        best = _best(means)
        gaps = np.maximum.reduce(means) - means
        weight = self.gamma * math.sqrt(max(model.decisions, 0.0))
        result = np.where(best > 0.0, 0.0, 1.0 / (means.size + weight * gaps))
        result += best * (1.0 - np.add.reduce(result))
        return result


class LinEpsilonGreedyPolicy(LinearPolicy):
    """The largest zT theta with probability 1 - epsilon, and uniform with probability epsilon.

    Simple, for rewards of any unit; it never stops exploring, so its regret grows linearly, by
    about epsilon times the mean gap per decision. Langford and Zhang 2007, "The epoch-greedy
    algorithm for contextual multi-armed bandits", is the variant with a proof.

    :param epsilon: share of the traffic that explores, in [0, 1]
    """

    name = "lin_epsilon_greedy"

    def __init__(
        self, features: Features | Mapping[str, Any], epsilon: float = 0.1, *, ridge: float = 1.0
    ) -> None:
        super().__init__(features, ridge=ridge)
        if not _is_number(epsilon) or not 0.0 <= epsilon <= 1.0:
            raise ConfigurationError(f"epsilon is {epsilon!r}; write a share from 0 to 1")
        self.epsilon = float(epsilon)

    def choose(self, model: LinearModel, z: FloatArray) -> FloatArray:
        """Return the mixture of the best arm and the uniform one."""
        return with_floor(_best(model.means(z)), self.epsilon)


def _best(scores: FloatArray) -> FloatArray:
    """Return probability 1 shared by the largest; rounding makes no difference between arms."""
    # Plain floats are faster than arrays so short.
    plain: list[float] = scores.tolist()
    best = max(plain)
    least = best - _TIE * max(best, -min(plain))
    share = 1.0 / sum(score >= least for score in plain)
    return np.array([share if score >= least else 0.0 for score in plain])


def _positive(name: str, value: Any) -> float:
    if not _is_number(value) or not 1.0 / _LARGEST < value < _LARGEST:
        raise ConfigurationError(f"{name} is {value!r}; write a number above 0, such as 0.5")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
