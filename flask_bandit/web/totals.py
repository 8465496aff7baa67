"""A bandit's stored sums as code of the app reads them: by arm, for one goal and version."""

from __future__ import annotations

from ..control import FIRST_VERSION
from ..counting import goal_stats
from ..model import ArmStats, BanditKey
from .earned import goal_of
from .state import AppState


def read_stats(
    state: AppState, name: str, version: int | None = None, goal: str | None = None
) -> dict[str, ArmStats]:
    """Read a bandit's counts; see :meth:`~flask_bandit.BanditMiddleware.stats`."""
    bandit = state.bandits[name]
    goal = goal_of(bandit, goal)
    counts = state.engine.read_counts()
    current = state.engine.version(name)
    key = BanditKey(name, current if version is None else version)
    if key not in counts and not FIRST_VERSION <= key.version <= current:
        raise ValueError(
            f"{name!r} has no version {version!r}; write one of {FIRST_VERSION} to {current}"
        )
    rows = counts.get(key, {})
    gone = () if version is None else sorted(rows.keys() - set(bandit.arm_ids))
    return {
        arm: goal_stats(bandit.options, rows.get(arm, {}), goal) for arm in (*bandit.arm_ids, *gone)
    }
