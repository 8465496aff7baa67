"""Why a request shows an arm: the decision behind it, where chance fell, and between which bounds.

For the debug panel. Reads what is stored and what the engine knows, and counts nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..bandits import Bandit
from ..control import RUNNING
from ..drawing import FLOOR, DrawTable
from ..hashing import hash_decision, is_held_out
from ..model import Decision
from .admission import Shown
from .visit import Visit

_DRAWN = frozenset({"decided", "prefetch", "head", "bot", "network", "filter", "error_page"})
_HELD = frozenset({"decided", "prefetch", "remembered", "forced", "limit"})
"""Where a decision may be behind the arm, if only by the cookie."""

LONGEST_CONTEXT = 1000
"""Letters of a context that are shown."""

Tables: TypeAlias = Mapping[str, DrawTable | None]
"""Bandit -> what an arm of it was drawn from; ``None`` while the storage is down."""


@dataclass(frozen=True)
class Stages:
    """How a policy's probabilities become those of the draw.

    :param heading: of which draw
    :param columns: what made them, only where it changed something
    :param rows: arm -> its probability in each column, and from where to where it is drawn
    :param notes: on the floor, and on arms that are left out
    """

    heading: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Why:
    """What decided a visitor's arm.

    :param facts: sentences
    :param stages: ``None`` where no policy was asked
    """

    facts: tuple[str, ...]
    stages: Stages | None


def tables_of_draws(visit: Visit) -> Tables:
    """Return what the visit's new arms were drawn from.

    To be asked before the visit's commit, which adds to the counts.
    """
    return {
        name: visit.state.engine.table(name, visit.attempt, visit.contexts.get(name))
        for name, shown in visit.shown.items()
        # A robot that has not consented was not drawn for either.
        if shown.how in _DRAWN and visit.has_consent
    }


def explain(visit: Visit, tables: Tables) -> dict[str, Why]:
    """Return for each bandit of a visit that has ended what decided its arm.

    Asks the storage for the decisions of all of them at once; while it is down, they are told as
    far as the visit knows them.

    :param tables: from :func:`tables_of_draws`
    """
    decisions = _decisions(visit)
    return {
        name: _Explanation(visit, name, shown, decisions.get(name), tables.get(name)).why()
        for name, shown in visit.shown.items()
    }


def _decisions(visit: Visit) -> dict[str, Decision]:
    """Return the decisions behind what is shown, as they are stored if they are."""
    held: dict[str, Decision] = {}
    for name, shown in visit.shown.items():
        decision = visit.held_decision(name) if shown.how in _HELD else None
        if decision is not None:
            held[name] = decision
    if not held:
        return {}
    engine = visit.state.engine
    ids = [decision.id for decision in held.values()]
    stored = engine.get_decisions(ids, engine.attempt()) or {}
    return {name: stored.get(decision.id, decision) for name, decision in held.items()}


class _Explanation:
    """One bandit's part of the explanation.

    :param decision: the one behind the arm, if any is
    :param table: what the arm was drawn from, if that was now
    """

    def __init__(
        self,
        visit: Visit,
        name: str,
        shown: Shown,
        decision: Decision | None,
        table: DrawTable | None,
    ) -> None:
        self._visit, self._name, self._arm = visit, name, shown.arm
        self._bandit: Bandit = visit.state.bandits[name]
        self._decision, self._table = decision, table
        self._is_drawn = table is not None
        self._context = visit.contexts.get(name) if decision is None else decision.context

    def why(self) -> Why:
        """Return it."""
        if self._decision is None and not self._is_drawn:
            return Why((), None)
        facts = [self._how_decided()] if self._decision is not None else []
        if self._context:
            facts.append(f"The context: {_written(self._context)}.")
        instead = self._instead_of_chance()
        if instead:
            return Why((*facts, instead), None)
        vector = self._vector()
        facts.extend(self._chance(vector))
        return Why(tuple(facts), self._stages(vector))

    def _how_decided(self) -> str:
        decision = self._decision
        assert decision is not None
        if not decision.policy_version:
            return (
                "The details of the decision cannot be read: they were pruned, or never stored, or"
                " the storage is down."
            )
        chance = (decision.propensities or {}).get(decision.arm)
        probability = "an unknown probability" if chance is None else f"probability {chance:.6g}"
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(decision.at))
        return f"Decided at {when} with {probability} by {decision.policy_version}."

    def _instead_of_chance(self) -> str:
        """Say what gave the arm to this visitor with certainty; empty if it was chance."""
        decision, visit = self._decision, self._visit
        if decision is not None:
            is_forced, is_out = decision.policy_version == "forced", decision.is_held_out
        else:
            is_forced = visit.forced(self._name) is not None
            is_out = is_held_out(self._holders()[0], self._name, self._bandit.options.holdout)
        if is_forced:
            return "A test forces this arm: no chance, no policy."
        if is_out:
            share = self._bandit.options.holdout
            return f"Held out, as {share:.4g} of all visitors are: they always get the control."
        return ""

    def _vector(self) -> DrawTable | None:
        """Return the probabilities that the arm was drawn with, if all of them are known."""
        known = None if self._decision is None else self._decision.propensities
        if known is None:
            return self._table
        if abs(sum(known.values()) - 1.0) < 1e-6:
            return DrawTable.of(tuple(known), known.values())
        # A prefetch's decision knows its own arm's probability only.
        table = self._table
        is_same = table is not None and table.propensities.get(self._arm) == known.get(self._arm)
        return table if is_same else None

    def _chance(self, vector: DrawTable | None) -> list[str]:
        uniform = self._uniform()
        # The order of the arms is that of the draw, unless a storage has changed it.
        if vector is None or uniform is None or vector.draw(uniform) != self._arm:
            return []
        low, high = vector.interval(self._arm)
        return [
            f"The draw: the decision's hash gives {uniform:.6f}, and {self._arm} is drawn from"
            f" {low:.6f} to below {high:.6f}."
        ]

    def _uniform(self) -> float | None:
        """Return the number that drew the arm, if the decision's id proves it."""
        name, cookie = self._name, self._visit.cookie
        version = self._visit.control(name).version
        rows = [row for row in (cookie.assignments.get(name), cookie.own.get(name)) if row]
        if self._decision is None:
            # Not stored: a visitor whose arm was removed is drawn again, with the next number.
            reassigned = [row.reassigned + 1 for row in rows[:1] if row.version == version] or [0]
            holders = self._holders()[:1]
        else:
            reassigned = [0, *(row.reassigned for row in rows)]
            holders = self._holders()
        for holder in holders:
            for number in reassigned:
                id_, uniform = hash_decision(holder, name, version, number)
                if self._decision is None or id_ == self._decision.id:
                    return uniform
        return None

    def _holders(self) -> list[str]:
        """Return whose hash it may be, the likelier first."""
        visitor, subject = self._visit.cookie.visitor, self._visit.subject
        is_cookies = subject is None or not self._bandit.is_sticky
        return [visitor] if is_cookies or subject is None else [subject.pseudonym, visitor]

    def _stages(self, vector: DrawTable | None) -> Stages | None:
        engine, name = self._visit.state.engine, self._name
        if self._visit.control(name).state != RUNNING:
            return None
        table = self._table or engine.table(name, engine.attempt(), self._context)
        if table is None or not table.stages:
            return None
        is_of_draw = vector is not None and vector.propensities == table.propensities
        columns: dict[str, list[str]] = {}
        before: list[str] = []
        for stage, values in table.stages.items():
            cells = [f"{value:.4f}" for value in values]
            if cells != before:
                columns[stage] = before = cells
        if is_of_draw:
            bounds = [table.interval(arm) for arm in table.arms]
            columns["drawn from"] = [f"{low:.4f} to {high:.4f}" for low, high in bounds]
        rows = dict(zip(table.arms, zip(*columns.values(), strict=True), strict=True))
        heading = "The probabilities of this draw" if is_of_draw else "The probabilities now"
        return Stages(heading, tuple(columns), rows, self._notes(table))

    def _notes(self, table: DrawTable) -> tuple[str, ...]:
        notes, arms = [], len(table.arms)
        floor = self._bandit.options.share(arms)
        if FLOOR in table.stages and floor > 0.0:
            notes.append(
                f"The floor F = {floor:g}: each p becomes (1 - F) p + F / K, with F / K ="
                f" {floor / arms:.4g} for K = {arms} arms."
            )
        out = [arm for arm in self._bandit.arm_ids if arm not in table.arms]
        if out:
            notes.append(f"No new visitor gets {', '.join(out)}: weight 0, or off.")
        return tuple(notes)


def _written(context: Mapping[str, Any]) -> str:
    """Return a context in one line; texts in it may be long, and anybody's."""
    text = json.dumps(context, ensure_ascii=False)
    return text if len(text) <= LONGEST_CONTEXT else f"{text[:LONGEST_CONTEXT]}..."
