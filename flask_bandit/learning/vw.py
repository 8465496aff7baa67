"""Models of VowpalWabbit (extra ``vw``): contextual bandits with action-dependent features.

The only module that imports the package; loaded when a trainer or a model of that kind is named.
A model is kept as the bytes that VowpalWabbit writes itself. Must not import Flask.
"""

from __future__ import annotations

import base64
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import vowpalwabbit

from ..errors import ConfigurationError
from ..features import Features
from ..model import FloatArray, IntArray, Stats
from .fitted import Places

if TYPE_CHECKING:
    from ..analysis.logged import Logged
    from .data import TrainingData

EXPLORE: Mapping[str, str] = {
    "egreedy": "--epsilon {amount}",
    "bag": "--bag {amount}",
    "cover": "--cover {amount}",
    "squarecb": "--squarecb --gamma_scale {amount}",
    "regcb": "--regcb --mellowness {amount}",
}
"""How VowpalWabbit is told to explore."""
_AMOUNTS: Mapping[str, float] = {
    "egreedy": 0.05,
    "bag": 5,
    "cover": 5,
    "squarecb": 10.0,
    "regcb": 0.001,
}
_WHOLE = ("bag", "cover")
_open: Any = vowpalwabbit.Workspace


class VowpalModel:
    """A model that VowpalWabbit fitted.

    :param features: ``None`` if it knows only the arms
    :param arms: that it has seen
    :param explore: one of :data:`EXPLORE`
    :param amount: of exploration
    :param content: what VowpalWabbit wrote
    """

    kind = "vw"

    def __init__(
        self,
        features: Features | None,
        arms: Sequence[str],
        explore: str,
        amount: float,
        content: bytes,
    ) -> None:
        self._features, self._arms = features, tuple(arms)
        self._explore, self._amount, self._content = explore, amount, content
        self._places = Places(self._arms)
        # One workspace may be asked by one thread at a time.
        self._lock = threading.Lock()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model")
            file.write_bytes(content)
            self._workspace = _open(f"--initial_regressor {file} --testonly --quiet")

    @property
    def version(self) -> str:
        """Name and parameters."""
        return f"vw({self._explore}={self._amount:g})"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per eligible arm."""

        def of_known(places: IntArray) -> FloatArray:
            lines = [_shared(self._features, context), *map(_action, places.tolist())]
            with self._lock:
                predicted = self._workspace.predict(lines)
            chances = np.array(predicted, dtype=np.float64)
            # It computes in single precision.
            chances /= chances.sum()
            return chances

        return self._places.spread(stats.arms, of_known)

    def dump(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "features": None if self._features is None else self._features.spec(),
            "arms": list(self._arms),
            "explore": self._explore,
            "amount": self._amount,
            "content": base64.b64encode(self._content).decode(),
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> VowpalModel:
        """Read what :meth:`dump` gave."""
        features = stored["features"]
        return cls(
            None if features is None else Features.parse(features),
            stored["arms"],
            stored["explore"],
            stored["amount"],
            base64.b64decode(stored["content"], validate=True),
        )


class VowpalTrainer:
    """Fits :class:`VowpalModel` with ``cb_explore_adf``, features crossed with arms.

    :param explore: ``egreedy``, ``bag``, ``cover``, ``squarecb`` or ``regcb``
    :param amount: epsilon, number of policies (bag, cover), scale of gamma, or mellowness
    :param passes: how often the log is read
    :param bits: of the table of weights
    :raises ConfigurationError: a value that cannot be meant
    """

    def __init__(
        self,
        explore: str = "egreedy",
        *,
        amount: float | None = None,
        passes: int = 1,
        bits: int = 18,
    ) -> None:
        if explore not in EXPLORE:
            raise ConfigurationError(f"explore is {explore!r}; known: {', '.join(EXPLORE)}")
        amount = _AMOUNTS[explore] if amount is None else amount
        if isinstance(amount, (str, bool)) or not 0.0 < amount < 1e9:
            raise ConfigurationError(f"amount is {amount!r}; write a number above 0")
        if explore in _WHOLE and amount != int(amount):
            raise ConfigurationError(f"amount is {amount!r}; write a number of policies, such as 5")
        for name, value, most in (("passes", passes, 100), ("bits", bits, 28)):
            if not isinstance(value, int) or not 0 < value <= most:
                raise ConfigurationError(f"{name} is {value!r}; write a whole number up to {most}")
        self._explore, self._passes, self._bits = explore, passes, bits
        self._amount = int(amount) if explore in _WHOLE else float(amount)

    def fit(self, data: TrainingData) -> VowpalModel:
        """Return the model of some decisions, read once more than there are passes."""
        taken = np.zeros(len(data.arms), dtype=bool)
        low, high = np.inf, -np.inf
        for batch in data:
            taken[batch.arm] = True
            low, high = min(low, batch.reward.min()), max(high, batch.reward.max())
        seen = np.flatnonzero(taken).tolist()
        # Costs of 0 to 1, as it expects them.
        scale = _Scale(
            float(high), float(high - low) or 1.0, {arm: n for n, arm in enumerate(seen)}
        )
        how = EXPLORE[self._explore].format(amount=self._amount)
        workspace = _open(
            f"--cb_explore_adf {how} --cb_type mtr --quadratic xa --bit_precision {self._bits} "
            "--random_seed 1 --quiet"
        )
        for _ in range(self._passes):
            for batch in data:
                for lines in scale.examples(batch, data.features):
                    workspace.learn(lines)
        arms = [data.arms[place] for place in seen]
        return VowpalModel(data.features, arms, self._explore, self._amount, _content(workspace))


class _Scale:
    """Writes decisions in VowpalWabbit's text format.

    :param high: largest reward
    :param span: from the smallest to the largest
    :param places: place of an arm in the log -> place in the model
    """

    def __init__(self, high: float, span: float, places: Mapping[int, int]) -> None:
        self._high, self._span, self._places = high, span, places

    def examples(self, batch: Logged, features: Features | None) -> Iterator[list[str]]:
        """Yield the lines of each decision."""
        for row, context in enumerate(batch.contexts):
            taken = int(batch.arm[row])
            cost = (self._high - float(batch.reward[row])) / self._span
            label = f"0:{cost!r}:{float(batch.propensity[row])!r} "
            yield [
                _shared(features, context),
                *(
                    (label if arm == taken else "") + _action(place)
                    for arm, place in self._places.items()
                    if batch.eligible[row, arm]
                ),
            ]


def _shared(features: Features | None, context: Mapping[str, Any] | None) -> str:
    if features is None:
        return "shared |x"
    vector = features.encode(context)
    columns = np.flatnonzero(vector).tolist()
    return "shared |x " + " ".join(f"{column}:{float(vector[column])!r}" for column in columns)


def _action(place: int) -> str:
    return f"|a arm{place}"


def _content(workspace: Any) -> bytes:
    """Return what VowpalWabbit writes, and let the workspace go."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model")
        workspace.save(str(file))
        workspace.finish()
        return file.read_bytes()
