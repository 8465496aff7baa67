"""Who takes part: why a visitor gets the common arm in place of one of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..bandits import Bandit
from ..control import CLOSED, RUNNING
from ..hashing import hash_share
from .visitors import ask

if TYPE_CHECKING:
    from .visit import Visit


class Shown(NamedTuple):
    """The arm that a visit showed, and why.

    :param how: ``decided``, ``remembered``, ``prefetch`` or ``forced``; ``control`` while the
        storage is down; else the reason for which nothing is counted
    """

    arm: str
    how: str


def common_arm(visit: Visit, name: str, bandit: Bandit) -> Shown | None:
    """Return what everybody gets, or this visitor whatever arm they hold; ``None`` if neither."""
    arms = bandit.arm_ids
    if not visit.state.config.enabled:
        return Shown(arms[0], "disabled")
    override = visit.override(name)
    if override is not None:
        return Shown(override, "override")
    if not visit.has_consent:
        return Shown(arms[0], visit.verdict.reason or "no_consent")
    control = visit.control(name)
    return None if control.is_serving else Shown(control.common_arm(arms), control.state)


def refusal(visit: Visit, name: str, bandit: Bandit) -> str | None:
    """Return why a visitor who holds no arm gets none, ``None`` if they may have one."""
    if visit.control(name).state == CLOSED:
        return CLOSED
    if visit.forced(name) is not None:  # a test asks for this arm, whoever the visitor is
        return None
    if not _is_targeted(visit, name, bandit):
        return "not_targeted"
    if bandit.options.group is not None and not _is_drawn_by_group(visit, name, bandit):
        return "other_experiment"
    return None


def _is_targeted(visit: Visit, name: str, bandit: Bandit) -> bool:
    targeting = bandit.options.targeting
    return targeting is None or ask(
        visit.state, targeting, f"targeting of {name!r}", otherwise=False
    )


def _is_drawn_by_group(visit: Visit, name: str, bandit: Bandit) -> bool:
    """Tell whether it is this bandit of its group that the visitor takes part in.

    :raises StorageAwayError: only the storage knows, and it is down
    """
    others = visit.others_of_group(name)
    if any(visit.holds_arm(other) for other in others):
        return False
    running = sorted([name, *(n for n in others if visit.control(n).state == RUNNING)])
    share = hash_share(visit.lasting_holder(), "group", str(bandit.options.group))
    return running[int(share * len(running))] == name and not visit.is_elsewhere(name)
