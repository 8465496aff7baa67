"""What the dashboard can do to a bandit: which actions it offers, what a form asks for, the audit.

When something can be done is told by :mod:`flask_bandit.control`; it is done by
:mod:`flask_bandit.web.actions`. Knows nothing of Flask-Admin.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...control import ACTIONS, DECLARED, Control
from ...errors import LifecycleError
from ..actions import WITHOUT_CODE, Action, Outcome
from ..pages import read_models
from ..reports import BanditReport, moment
from ..state import AppState
from .access import one_line
from .models import let_serve, named, subject_of_model

WEIGHT, OFF, SEEN = "weight:", "off:", "seen:"
"""How the names of a form's fields begin that an arm's id follows."""
IS_OFF = "off"
"""What was seen of an arm that nobody gets; of the others, it is the weight."""

audit = logging.getLogger("flask_bandit.audit")


@dataclass(frozen=True)
class Offer:
    """Something that can be done.

    :param title: what a button says
    :param meaning: what it does
    :param is_final: it cannot be undone
    """

    action: str
    title: str
    meaning: str
    is_final: bool = False


OFFERS = {
    offer.action: offer
    for offer in (
        Offer(
            "pause",
            "Pause",
            "Everybody gets the control and nothing is counted, until you resume it.",
        ),
        Offer("resume", "Resume", "It goes on as it was before the pause."),
        Offer(
            "declare",
            "Declare a winner",
            "Everybody gets the arm that you choose, and nothing is counted any more. You can"
            " reopen it later.",
        ),
        Offer(
            "weights",
            "Weigh arms",
            "A weight is a factor on what the policy gives an arm: with 2 it gets twice as much"
            " against the others, with 0 no new visitor gets it and who has it keeps it. An arm"
            " that is off is given to nobody, and who has it gets another. Counts stay.",
        ),
        Offer(
            "close",
            "Close",
            "No new visitors are taken in: they get the control, uncounted. Who has an arm keeps"
            " it and is counted.",
        ),
        Offer(
            "deploy",
            "Choose a model",
            "What you choose draws the arms from now on. Counts stay. Everything in the storage is"
            " saved in a folder before a model is deployed, and you can roll back later.",
        ),
        Offer("reopen", "Reopen", "It runs again, with the counts that there are."),
        Offer(
            "archive",
            "Archive",
            "It is put away: everybody gets the winner, or the control, and no list has it. You"
            " can reopen it later.",
        ),
        Offer(
            "reset",
            "Reset",
            "It starts again at zero, as the next version, and all visitors are drawn again. The"
            " counts of this version can still be looked at. This cannot be undone.",
            is_final=True,
        ),
    )
}
"""The actions in the order in which they are offered."""


CHOSEN_LATER = ("declare", "weights", "deploy")
"""Whose form asks for more than a yes."""


def offered(report: BanditReport, has_models: bool = False) -> tuple[Offer, ...]:
    """Return what can be done to a bandit in its present state and would change something.

    :param has_models: one may be deployed or rolled back
    """
    if not report.is_current:
        return ()
    sensible = (offer for offer in OFFERS.values() if _makes_sense(report, offer.action))
    return tuple(offer for offer in sensible if has_models or offer.action != "deploy")


def _makes_sense(report: BanditReport, action: str) -> bool:
    if not report.in_code and action not in WITHOUT_CODE:
        return False
    control = Control(report.state, report.version, report.winner)
    if action in ("declare", "weights") and len(arms_of(report)) < 2:
        return False
    try:
        changed = ACTIONS[action](control, arms_of(report), *_sample(report, action))
    except LifecycleError:
        return False
    return action in CHOSEN_LATER or changed != control


def _sample(report: BanditReport, action: str) -> tuple[Any, ...]:
    """Return what an action could be about, to try whether it is possible at all."""
    subject = sample(report, action)
    return () if subject is None else (subject,)


def sample(report: BanditReport, action: str) -> Any:
    """Return an arm that could be declared, weights or a model that are possible, or ``None``."""
    if action == "declare":
        arms = arms_of(report)
        return next((arm for arm in arms if arm != report.winner), arms[0] if arms else "")
    return {"weights": {}, "deploy": 0}.get(action)


def arms_of(report: BanditReport) -> tuple[str, ...]:
    """Return the arms that the code has."""
    return tuple(each.arm for each in report.arms if each.in_code)


def subject_of(report: BanditReport, action: str, form: Mapping[str, str]) -> Any:
    """Return what a form says that an action is about.

    :raises ValueError: nothing was chosen, or it is no number; the message says what to do
    """
    if action == "declare":
        if not form.get("arm"):
            raise ValueError("choose the arm that everybody shall get")
        return form["arm"]
    return _weights(report, form) if action == "weights" else None


def _weights(report: BanditReport, form: Mapping[str, str]) -> dict[str, float | None]:
    """Return the weights that are not as the form showed them: what others changed stays."""
    changed: dict[str, float | None] = {}
    for arm in (each.arm for each in report.arms):
        seen = form.get(SEEN + arm)
        if OFF + arm in form:
            if seen != IS_OFF:
                changed[arm] = None
        elif form.get(WEIGHT + arm, seen) != seen:
            changed[arm] = _weight(arm, form[WEIGHT + arm])
    if not changed:
        raise ValueError("the weights are like this already; change one, or go back")
    return changed


def _weight(arm: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(f"the weight of {arm!r} is {text!r}; write a number such as 0.5 or 2")
    return weight


def perform(
    state: AppState, found: BanditReport, action: str, form: Mapping[str, str], by: str
) -> tuple[str, bool]:
    """Do what a form says for all workers, and leave a line in the audit log.

    :param by: who does it
    :return: what was done and when visitors see it, and whether anything was
    :raises ValueError: nothing was chosen, or it is no number
    :raises LifecycleError: not in the bandit's present state
    :raises StorageError: the storage is down
    """
    name = found.name
    if action == "deploy":
        wanted = subject_of_model(read_models(state, name), form.get("model"), form.get("serving"))
        with _noted(by, action, name, wanted) as results:
            told = named(let_serve(state, name, wanted, by))
            results.append(f"done, {told} serves")
        ttl = _within(state.config.control_ttl)
        return (
            f"{told[:1].upper()}{told[1:]} draws the arms of {name}. All workers follow {ttl}.",
            True,
        )
    subject = subject_of(found, action, form)
    with _noted(by, action, name, subject) as results:
        timeout = state.config.storage_timeout
        outcome = Action(state, [name], action, subject, by, timeout).do(name)
        if not outcome.changed:
            results.append("nothing to change")
    return sentence(outcome, action), outcome.changed


@contextmanager
def _noted(by: str, action: str, name: str, subject: Any) -> Iterator[list[str]]:
    """Leave a line in the audit log, whatever comes of it.

    :return: what came of it can be put in here; else it is done
    """
    results: list[str] = []
    try:
        yield results
    except Exception as error:
        note(by, action, name, subject, f"failed: {error}")
        raise
    note(by, action, name, subject, "".join(results) or "done")


def _within(ttl: float) -> str:
    return f"within {ttl:g} s" if ttl else "at once"


def note(by: str, action: str, name: str, subject: Any, result: str) -> None:
    """Leave a line in the audit log: when, who, what, and what came of it."""
    about = "" if subject is None else f" {subject!r}"
    # As repr, so that no name of a bandit or an arm makes a second line; and no error does.
    told = one_line(result)
    audit.info("%s %s: %s%s of %r: %s", moment(time.time()), by, action, about, name, told)


def sentence(outcome: Outcome, action: str) -> str:
    """Return what an action did, and when visitors see it."""
    state = outcome.state
    if state == DECLARED:
        state = f"declared, with {outcome.winner!r} as the winner"
    if not outcome.changed:
        return f"{outcome.name} is {state} already; nothing was changed."
    if action == "reset":
        state = f"{state} as version {outcome.version}, from zero"
    followed = _within(outcome.followed_within)
    return f"{outcome.name} is {state}: {outcome.visitors}. All workers follow {followed}."
