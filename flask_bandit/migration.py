"""Reads the counts that Flask-MAB kept in its JSON file, as increments to add once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .bandits import Bandit
from .errors import ConfigurationError
from .model import StatsDelta
from .storage.base import Adjustment


def flask_mab_adjustments(
    file: str, bandits: Mapping[str, Bandit], version: Callable[[str], int]
) -> tuple[list[Adjustment], list[str]]:
    """Return the increments in a Flask-MAB file for the bandits that the app still has.

    :param file: path of the JSON file
    :param bandits: the app's bandits by name
    :param version: gives a bandit's version
    :return: the increments, and notes about what was left out or had to be assumed
    :raises ConfigurationError: the file is not one that Flask-MAB wrote
    """
    content = Path(file).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:32]
    adjustments, notes = [], []
    for name, saved in _saved_bandits(file, content).items():
        if name not in bandits:
            notes.append(f"{name}: the app has no such bandit, left out")
            continue
        counts = {}
        for arm, pulls, reward in _saved_arms(file, name, saved):
            if arm not in bandits[name].arm_ids:
                notes.append(f"{name}: the arm {arm!r} is no longer in the code; its counts stay")
            if reward > pulls:
                notes.append(
                    f"{name}: the arm {arm!r} has a reward of {reward:g} in {pulls} pulls; "
                    "Flask-MAB lost pulls, or rewards were not 0 or 1"
                )
            counts[arm] = _counts(pulls, reward)
        adjustments.append(
            Adjustment(f"flask-mab:{digest}:{name}", name, version(name), StatsDelta(counts))
        )
    return adjustments, notes


def _saved_bandits(file: str, content: bytes) -> dict[str, Any]:
    try:
        saved = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file} is no JSON: {error}") from error
    if not isinstance(saved, dict):
        raise ConfigurationError(f"{file} is no Flask-MAB storage: it must hold bandits by name")
    return saved


def _saved_arms(file: str, name: str, saved: Any) -> list[tuple[str, int, float]]:
    try:
        rows = list(zip(saved["arms"], saved["pulls"], saved["reward"], strict=True))
        arms = [(str(arm), int(pulls), float(reward)) for arm, pulls, reward in rows]
        if len({arm for arm, _, _ in arms}) < len(arms):
            raise ValueError("an arm stands there twice")
        if not all(pulls >= 0 and math.isfinite(reward) for _, pulls, reward in arms):
            raise ValueError("pulls below 0, or a reward that is no finite number")
        return arms
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{file}: the bandit {name!r} needs 'arms', 'pulls' and 'reward', lists of one length "
            f"({type(error).__name__}: {error})"
        ) from error


def _counts(pulls: int, reward: float) -> dict[str, float]:
    """Assume rewards of 1, the only kind that Flask-MAB's file can be read as.

    It keeps neither their number nor their squares.
    """
    return {
        "pulls": pulls,
        "rewards": round(reward),
        "reward": reward,
        "reward_sq": reward,
    }
