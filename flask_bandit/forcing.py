"""Are the arms that a test forces real ones? Asked before the first use in each request.

Knows no Flask: the web room calls it, and :mod:`flask_bandit.testing` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import UnknownArmError, UnknownBanditError
from .plugins import nearest

if TYPE_CHECKING:
    from .bandits import Bandit


def require_known(forced: Mapping[str, str], bandits: Mapping[str, Bandit]) -> None:
    """Raise if something is forced that does not exist: the test would show what it shall not.

    :param forced: bandit -> arm id
    :param bandits: all bandits of the app, by name
    :raises UnknownBanditError: with the nearest name
    :raises UnknownArmError: with the nearest id
    """
    for name, arm in forced.items():
        if name not in bandits:
            raise UnknownBanditError(
                f"{arm!r} is forced for {name!r}, and the app has no such bandit: correct the "
                f"test's force(); {nearest(name, bandits)}"
            )
        arms = bandits[name].arm_ids
        if arm not in arms:
            raise UnknownArmError(
                f"{arm!r} is forced for {name!r}, and that bandit has no such arm: correct the "
                f"test's force(); {nearest(arm, arms)}"
            )
