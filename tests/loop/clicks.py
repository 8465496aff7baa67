"""A world of real clicks: visitors, arms and rewards are rows of the small Open Bandit Dataset.

Its campaign ``all`` showed 80 items of a fashion shop uniformly, 10,000 times, and had 38 clicks.
The arms are the five items that were clicked most often, 2 or 3 times in about 120 rows each: so
their click rates are those of these rows, several times the usual one, and not what the shop would
see again. In the world that the rows make they are the truth, and it is known exactly.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.open_bandit import UNIFORM, rows
from flask_bandit.model import FloatArray, IntArray

KNOWN = ("user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3", "position")
"""What is known of a visitor: the user, and the place on the page."""
ARMS = ("49", "57", "44", "6", "36")
LEAST_ROWS = 50
"""A value that fewer rows have is no category of its own."""


class ClickWorld:
    """Who comes, and whether they click.

    A visitor is a row of the log. A visitor who sees an item clicks as another row did, drawn by a
    hash from those rows of that item that agree with the visitor in most of :data:`KNOWN`.

    :param wheel: that has the log
    """

    def __init__(self, wheel: Path) -> None:
        found = list(rows(wheel, UNIFORM, "all"))
        self.contexts = [{name: row[name] for name in KNOWN} for row in found]
        """What is known of each row's visitor."""
        self._clicks = np.array([int(row["click"]) for row in found])
        self._shown = np.array([row["item_id"] for row in found])
        self._known = np.array([list(each.values()) for each in self.contexts])
        kinds, kind = np.unique(self._known, axis=0, return_inverse=True)
        self._kind = kind.reshape(-1)
        self._near = {arm: [self._nearest(arm, kind) for kind in kinds] for arm in ARMS}

    def _nearest(self, arm: str, kind: Sequence[str]) -> IntArray:
        of_arm = np.flatnonzero(self._shown == arm)
        agreeing = (self._known[of_arm] == kind).sum(axis=1)
        nearest: IntArray = of_arm[agreeing == agreeing.max()]
        return nearest

    def context(self, visitor: int) -> Mapping[str, str]:
        """Return what is known of a visitor.

        :param visitor: from 0; after the last row, the first one comes again
        """
        return self.contexts[visitor % len(self.contexts)]

    def clicks(self, visitor: int, arm: str) -> bool:
        """Return whether a visitor clicks on an item."""
        near = self._near[arm][self._kind[visitor % len(self.contexts)]]
        digest = hashlib.blake2b(f"{visitor} {arm}".encode(), digest_size=8).digest()
        return bool(self._clicks[near[int.from_bytes(digest, "big") % near.size]])

    @property
    def favourites(self) -> list[str]:
        """The items with most clicks; of two, the one that was shown more often."""
        shown = Counter(self._shown.tolist())
        clicked = Counter(self._shown[self._clicks == 1].tolist())
        return sorted(shown, key=lambda item: (-clicked[item], -shown[item]))[: len(ARMS)]

    @property
    def features(self) -> dict[str, list[str]]:
        """What a bandit in this world declares: a category for each usual value."""
        columns = (Counter(column.tolist()) for column in self._known.T)
        return {
            name: sorted(value for value, count in found.items() if count >= LEAST_ROWS)
            for name, found in zip(KNOWN, columns, strict=True)
        }

    def value(self, policy: FloatArray) -> float:
        """Return clicks per visitor, exactly.

        :param policy: probability of each arm by row, shape (rows, K), or the same for all rows
        """
        rates = [[self._clicks[near].mean() for near in self._near[arm]] for arm in ARMS]
        of_rows = np.array(rates).T[self._kind]
        return float((of_rows * policy).sum(axis=1).mean())
