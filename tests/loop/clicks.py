"""A world of real clicks: visitors, arms and rewards are rows of the small Open Bandit Dataset.

Its campaign ``all`` showed 80 items of a fashion shop uniformly, 10,000 times, and had 38 clicks.
The arms are the five items that were clicked most often, 2 or 3 times in about 120 rows each: so
their rates are those of these rows, three times the usual ones, and not what the shop would see
again. In the world that the rows make they are the truth, and it is known exactly.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flask_bandit.model import FloatArray, IntArray

USER = ("user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3")
COLUMNS = (*USER, "position")
ARMS = ("49", "57", "44", "6", "36")
LEAST_ROWS = 50
"""A value that fewer rows have is no category of its own."""


class World:
    """Who comes, and whether they click.

    A visitor is a row of the log: what is known of the user, and the place on the page. A visitor
    who sees an item clicks as another row did, drawn by a hash from those rows of that item which
    agree with the visitor in most columns.

    :param file: the log
    """

    def __init__(self, file: Path) -> None:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        self.contexts = [{name: row[name] for name in COLUMNS} for row in rows]
        self._clicks = np.array([int(row["click"]) for row in rows])
        self._shown = np.array([row["item_id"] for row in rows])
        self._known = np.array([list(each.values()) for each in self.contexts])
        kinds, self._kind = np.unique(self._known, axis=0, return_inverse=True)
        self._near = {arm: [self._nearest(arm, kind) for kind in kinds] for arm in ARMS}

    def _nearest(self, arm: str, kind: Sequence[str]) -> IntArray:
        rows = np.flatnonzero(self._shown == arm)
        agreeing = (self._known[rows] == kind).sum(axis=1)
        nearest: IntArray = rows[agreeing == agreeing.max()]
        return nearest

    def __len__(self) -> int:
        return len(self.contexts)

    def clicks(self, visitor: int, arm: str) -> bool:
        """Return whether a visitor clicks on an item.

        :param visitor: from 0; after the last row, the first one comes again
        """
        rows = self._near[arm][self._kind[visitor % len(self)]]
        digest = hashlib.blake2b(f"{visitor} {arm}".encode(), digest_size=8).digest()
        return bool(self._clicks[rows[int.from_bytes(digest, "big") % rows.size]])

    @property
    def items(self) -> list[str]:
        """The items, the one with most clicks first; of two, the one that was shown more often."""
        shown = Counter(self._shown.tolist())
        clicked = Counter(self._shown[self._clicks == 1].tolist())
        return sorted(shown, key=lambda item: (-clicked[item], -shown[item]))

    def rates(self) -> FloatArray:
        """Return how probable a click is, shape (rows, arms)."""
        by_kind = np.array([[self._clicks[rows].mean() for rows in self._near[a]] for a in ARMS])
        found: FloatArray = by_kind.T[self._kind]
        return found


def features(file: Path) -> Mapping[str, Any]:
    """Return what a bandit in this world declares: a category for each usual value."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    counts = {name: Counter(row[name] for row in rows) for name in COLUMNS}
    return {
        name: sorted(value for value, count in counts[name].items() if count >= LEAST_ROWS)
        for name in COLUMNS
    }


@cache
def world(file: Path) -> World:
    """Return the world of a file, read once."""
    return World(file)
