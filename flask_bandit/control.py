"""The life of a bandit: what operators decide about it while it runs, stored beside its counts.

Pure: a :class:`Control` is a value, an action makes a new one of it. The engine stores them by
compare-and-swap, and every worker reads them anew once per ``MAB_CONTROL_TTL``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .errors import LifecycleError

FIRST_VERSION = 1
RUNNING, CLOSED, PAUSED, DECLARED, ARCHIVED = (
    "running",
    "closed",
    "paused",
    "declared",
    "archived",
)
STATES = (RUNNING, CLOSED, PAUSED, DECLARED, ARCHIVED)
LONGEST_HISTORY = 100
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6
"""So far apart that no product of weight and probability vanishes, or is too large."""


@dataclass(frozen=True, slots=True)
class Control:
    """What is decided about one bandit.

    :param state: ``running``; ``closed``: visitors keep their arms, new ones get the control;
        ``paused``: all get the control; ``declared``: all get the winner; ``archived``: as
        declared, or as paused if there is no winner, and out of the lists
    :param version: a reset starts the next one at zero; the counts of the others stay
    :param winner: the declared arm
    :param resumes: the state before a pause
    :param weights: arm -> factor on the policy's probability; 1 where nothing is said, and 0 for
        an arm that gets no new visitors while its visitors keep it
    :param removed: arms that nobody gets; their visitors are given another
    :param closed_until: seconds since the epoch; the reward windows of all decisions made before
        are closed
    :param model: number of the deployed model that draws the arms; 0 for the policy of the code
    :param history: (seconds since the epoch, what was done), the oldest first
    """

    state: str = RUNNING
    version: int = FIRST_VERSION
    winner: str | None = None
    resumes: str = RUNNING
    weights: Mapping[str, float] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    closed_until: float = 0.0
    model: int = 0
    history: tuple[tuple[float, str], ...] = ()

    @classmethod
    def load(cls, stored: Mapping[str, Any] | None) -> Control:
        """Read what :meth:`dump` gave to a storage; keys of later versions are left out.

        What makes no sense, as after an edit by hand, is left out too, and then the bandit is
        paused: the control is safe to show, and no counts are spoilt. See :func:`nonsense_in`.
        """
        if stored is None:
            return cls()
        wrong = nonsense_in(stored)
        sound = stored if isinstance(stored, Mapping) else {}
        known = {n: sound[n] for n in cls.__dataclass_fields__ if n in sound and n not in wrong}
        known["removed"] = tuple(known.get("removed", ()))
        known["history"] = tuple((at, what) for at, what in known.get("history", ()))
        control = cls(**known)
        if wrong and control.state != PAUSED:
            resumes = control.state if control.is_serving else RUNNING
            return replace(control, state=PAUSED, resumes=resumes)
        return control

    def dump(self) -> dict[str, Any]:
        """Return plain values for a storage."""
        plain = asdict(self)
        plain["removed"] = list(self.removed)
        plain["history"] = [list(entry) for entry in self.history]
        return plain

    @property
    def is_serving(self) -> bool:
        """True while visitors get arms of their own."""
        return self.state in (RUNNING, CLOSED)

    def common_arm(self, arms: Sequence[str]) -> str:
        """Return the arm that everybody gets while visitors have none of their own.

        :param arms: the arms that the code has; the first is the control
        """
        if self.state in (DECLARED, ARCHIVED) and self.winner in arms:
            assert self.winner is not None
            return self.winner
        return arms[0]

    def holds(self, arm: str, arms: Sequence[str], *, is_held_out: bool = False) -> bool:
        """Return whether a visitor may keep an arm.

        :param is_held_out: the visitor always gets the control, also where others do not
        """
        return arm in arms and (arm not in self._away(arms) or (is_held_out and arm == arms[0]))

    def drawing(self, arms: Sequence[str]) -> dict[str, float] | None:
        """Return the eligible arms with their weights; ``None`` if all are equal.

        If none would be left, because the code lost arms since, it is all of them.
        """
        if not self.weights and not self.removed:
            return None
        away = self._away(arms)
        weights = {arm: self.weights.get(arm, 1.0) for arm in arms if arm not in away}
        return {arm: weight for arm, weight in weights.items() if weight > 0.0} or None

    def _away(self, arms: Sequence[str]) -> tuple[str, ...]:
        """Return the arms that nobody gets: none of them, if the code has no others any more."""
        return self.removed if any(arm not in self.removed for arm in arms) else ()


def pause(control: Control, arms: Sequence[str]) -> Control:
    """Show the control to everybody, and count nothing, until it is resumed."""
    _refuse(control, PAUSED, DECLARED, ARCHIVED)
    if control.state == PAUSED:
        return control
    return replace(control, state=PAUSED, resumes=control.state)


def resume(control: Control, arms: Sequence[str]) -> Control:
    """Go on after a pause."""
    if control.state in (RUNNING, CLOSED):
        return control
    _refuse(control, "resumed", DECLARED, ARCHIVED)
    return replace(control, state=control.resumes)


def close(control: Control, arms: Sequence[str]) -> Control:
    """Take in no new visitors: they get the control, and those who hold an arm keep it."""
    _refuse(control, CLOSED, PAUSED, DECLARED, ARCHIVED)
    return replace(control, state=CLOSED)


def declare(control: Control, arms: Sequence[str], arm: str) -> Control:
    """Give everybody the winner."""
    _refuse(control, DECLARED, ARCHIVED)
    _require_arm(arm, arms)
    return replace(control, state=DECLARED, winner=arm)


def reopen(control: Control, arms: Sequence[str]) -> Control:
    """Run again, with the counts that there are."""
    _refuse(control, "reopened", PAUSED)
    return replace(control, state=RUNNING, winner=None)


def archive(control: Control, arms: Sequence[str]) -> Control:
    """Put it away: it is in no list, and everybody gets the winner or the control."""
    return replace(control, state=ARCHIVED)


def reset(control: Control, arms: Sequence[str]) -> Control:
    """Start again at zero, as the next version; the counts of this one can still be read."""
    return replace(control, state=RUNNING, winner=None, version=control.version + 1)


def weigh(control: Control, arms: Sequence[str], weights: Mapping[str, float | None]) -> Control:
    """Set the weights of some arms.

    :param weights: arm -> factor; 0: no new visitors; ``None``: nobody gets the arm
    """
    _refuse(control, "weighted", ARCHIVED)
    factors, removed = dict(control.weights), set(control.removed)
    for arm, weight in weights.items():
        _require_arm(arm, arms)
        factors.pop(arm, None)
        removed.discard(arm)
        if weight is None:
            removed.add(arm)
        elif not _is_weight(weight):
            raise LifecycleError(
                f"the weight of {arm!r} is {weight!r}; write a number from 0 to 1000000, which "
                "if it is not 0 is at least 0.000001"
            )
        elif weight != 1.0:
            factors[arm] = float(weight)
    if not any(factors.get(arm, 1.0) > 0.0 for arm in arms if arm not in removed):
        raise LifecycleError(
            "no arm would be left for new visitors; give one a weight above 0, or pause the bandit"
        )
    return replace(control, weights=factors, removed=tuple(sorted(removed)))


def deploy(control: Control, arms: Sequence[str], model: int) -> Control:
    """Let a trained model draw the arms; 0 for the policy of the code."""
    _refuse(control, "given another model", ARCHIVED)
    if not _is_model(model):
        raise LifecycleError(
            f"the model is {model!r}; write its number, or 0 for the policy of the code"
        )
    return replace(control, model=model)


ACTIONS: Mapping[str, Callable[..., Control]] = {
    "pause": pause,
    "resume": resume,
    "close": close,
    "declare": declare,
    "reopen": reopen,
    "archive": archive,
    "reset": reset,
    "weights": weigh,
    "deploy": deploy,
}
"""What can be done to a bandit: takes its control, the arms in the code, and what it is about."""


def act(
    control: Control,
    action: str,
    arms: Sequence[str],
    at: float,
    subject: Any = None,
    by: str = "",
) -> Control:
    """Do one of :data:`ACTIONS`; the same control comes back if nothing changes.

    :param at: seconds since the epoch, for the history
    :param subject: the arm to declare, or the weights
    :param by: who does it, for the history, if that is known
    :raises LifecycleError: not in this state, or not with this subject
    """
    arguments = () if subject is None else (subject,)
    changed = ACTIONS[action](control, arms, *arguments)
    if changed == control:
        return control
    words = action if subject is None else f"{action} {_in_words(subject)}"
    words += f" (by {by})" if by else ""
    history = (*control.history, (at, words))[-LONGEST_HISTORY:]
    return replace(changed, history=history)


def lifetime(control: Control, version: int) -> tuple[float, float | None]:
    """Return when a version began and ended, as far as the history tells.

    :return: seconds since the epoch; 0.0 if it is not known when it began, ``None`` if it has not
        ended or that is not known
    """
    resets = [at for at, what in control.history if what.split(" ", 1)[0] == "reset"]
    began, ended = control.version - version + 1, control.version - version
    return (
        resets[-began] if 0 < began <= len(resets) else 0.0,
        resets[-ended] if 0 < ended <= len(resets) else None,
    )


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and (value == 0.0 or SMALLEST_WEIGHT <= value <= LARGEST_WEIGHT)


def nonsense_in(stored: Any) -> dict[str, str]:
    """Return what of a stored control cannot be meant: its name, and in words what is wrong."""
    if stored is None:
        return {}
    if not isinstance(stored, Mapping):
        return {"": f"it is {stored!r}, and no table"}
    return {
        name: f"{name} is {stored[name]!r}, and no {kind}"
        for name, (kind, is_sound) in _KINDS.items()
        if name in stored and not is_sound(stored[name])
    }


def problems_of(stored: Any, arms: Sequence[str]) -> list[str]:
    """Return what is wrong with a stored control, each with its fix.

    :param arms: the arms that the code has
    """
    wrong, control = nonsense_in(stored), Control.load(stored)
    found = []
    if wrong:
        found.append(
            f"what is stored about it makes no sense, so it is paused: {'; '.join(wrong.values())}."
            " Any action, such as 'resume', writes it anew"
        )
    if control.state == DECLARED and control.winner not in arms:
        found.append(
            f"the declared winner {control.winner!r} is not in the code, so everybody gets "
            f"{arms[0]!r}, the control: 'reopen' it and 'declare' another"
        )
    if all(arm in control.removed for arm in arms):
        found.append("weights took all of its arms away, so all are in play: give one 'on'")
    return found


def _is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(is_item(item) for item in value)


def _is_number(value: Any, least: float, most: float) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and least <= value <= most


def _is_entry(value: Any) -> bool:
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    return is_pair and _is_number(value[0], 0.0, _LATEST) and isinstance(value[1], str)


def _is_model(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value, 0, 2**31)


_LATEST = 253402300799.0
"""The end of the year 9999, in seconds since the epoch."""
_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "state": ("state", lambda value: value in STATES),
    "version": (
        "whole number from 1",
        lambda value: isinstance(value, int) and _is_number(value, 1, 2**31),
    ),
    "winner": ("arm", lambda value: value is None or isinstance(value, str)),
    "resumes": ("state before a pause", lambda value: value in (RUNNING, CLOSED)),
    "weights": (
        "table of weights",
        lambda value: isinstance(value, Mapping) and all(map(_is_weight, value.values())),
    ),
    "removed": ("list of arms", lambda value: _is_list(value, lambda arm: isinstance(arm, str))),
    "model": ("number of a model", _is_model),
    "closed_until": ("time", lambda value: _is_number(value, 0.0, _LATEST)),
    "history": ("history", lambda value: _is_list(value, _is_entry)),
}


def _in_words(subject: Any) -> str:
    if not isinstance(subject, Mapping):
        return str(subject)
    pairs = ((arm, "off" if weight is None else f"{weight:g}") for arm, weight in subject.items())
    return " ".join(f"{arm}={weight}" for arm, weight in pairs)


def _refuse(control: Control, what: str, *states: str) -> None:
    """Raise if the control is in one of ``states`` and something else is wanted."""
    if control.state not in states or control.state == what:
        return
    fix = "resume" if control.state == PAUSED else "reopen"
    raise LifecycleError(f"it is {control.state} and cannot be {what}; {fix} it first")


def _require_arm(arm: str, arms: Sequence[str]) -> None:
    if arm not in arms:
        raise LifecycleError(f"there is no arm {arm!r}; known: {', '.join(arms)}")
