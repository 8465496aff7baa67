"""Why a request shows an arm: in real requests, against what was stored and drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask, Response

from flask_bandit import BanditMiddleware
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.model import Arm, Decision, StatsDelta
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Adjustment, Commit
from flask_bandit.testing import force
from flask_bandit.web.request import RequestState, request_state
from flask_bandit.web.why import Why, explain, tables_of_draws

from .conftest import cookie_value

ARMS = ("green", "red", "blue")


def shop(bandit: Bandit | None = None, **config: Any) -> Flask:
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="k" * 32, MAB_CONTROL_TTL=0, MAB_STORAGE_ENGINE=MemoryBanditStorage()
    )
    app.config.update(config)
    bandit = Bandit() if bandit is None else bandit
    for arm in ARMS:
        bandit.add_arm(arm)
    BanditMiddleware(app).add_bandit("btn", bandit)
    return app


def ask(app: Flask, cookie: str = "", **arguments: Any) -> tuple[Why, str, str]:
    """Return why a request shows an arm, the arm, and the cookie afterwards."""
    headers = {"Cookie": f"MAB={cookie}", **arguments.pop("headers", {})}
    with app.test_request_context("/", headers=headers, **arguments):
        visit = request_state()
        arm = visit.choose("btn")
        why = explained(visit)
        sent = app.process_response(Response())
        return why, arm, cookie_value(sent) if "MAB=" in str(sent.headers) else cookie


def explained(visit: RequestState) -> Why:
    tables = tables_of_draws(visit)
    visit.finish(Response())
    return explain(visit, tables)["btn"]


def change(app: Flask, *action: Any) -> None:
    app.extensions["bandit"].engine.change("btn", *action)


def drawn(why: Why, arm: str) -> tuple[float, float, float]:
    """Return the uniform number and the bounds of the arm."""
    pattern = rf"gives ([\d.]+), and {arm} is drawn from ([\d.]+) to below ([\d.]+)\."
    (found,) = [match for fact in why.facts if (match := re.search(pattern, fact))]
    uniform, low, high = map(float, found.groups())
    return uniform, low, high


def decided(why: Why) -> str:
    """Return the probability, as it is told."""
    found = re.search(r"Decided at \S+ \S+ UTC with (.*) by ", why.facts[0])
    assert found
    return found[1]


@pytest.mark.parametrize("attempt", range(10))
def test_a_new_visitor(attempt: int) -> None:
    """In ten tries of chance."""
    why, arm, _ = ask(shop())
    assert decided(why) == "probability 0.333333"
    uniform, low, high = drawn(why, arm)
    place = ARMS.index(arm)
    assert low == pytest.approx(place / 3, abs=1e-6)
    assert high == pytest.approx((place + 1) / 3, abs=1e-6)
    assert low <= uniform <= high
    assert why.stages is not None
    assert why.stages.heading == "The probabilities of this draw"
    assert why.stages.rows[arm] == ("0.3333", f"{place / 3:.4f} to {(place + 1) / 3:.4f}")


def test_who_comes_back_is_told_what_was_then_and_what_is_now() -> None:
    app = shop(Bandit(floor=0.0))
    first, arm, cookie = ask(app)
    change(app, "weights", {"green": 3.0})
    again, same, _ = ask(app, cookie)
    assert same == arm
    assert decided(again) == "probability 0.333333"
    assert drawn(again, arm) == drawn(first, arm)
    assert again.stages is not None
    assert again.stages.heading == "The probabilities now"
    assert again.stages.columns == ("policy", "weights")
    assert again.stages.rows["green"] == ("0.3333", "0.6000")
    assert again.stages.rows["red"] == ("0.3333", "0.2000")


def test_the_stages_of_a_draw_end_where_the_draw_begins() -> None:
    """0.6 of (1/4, 3/4) and a floor of 0.4 between two, and blue is off."""
    app = shop(Bandit(floor=0.4))
    change(app, "weights", {"red": 3.0, "blue": None})
    why, _, _ = ask(app)
    assert why.stages is not None
    assert why.stages.columns == ("policy", "weights", "floor", "drawn from")
    assert why.stages.rows == {
        "green": ("0.5000", "0.2500", "0.3500", "0.0000 to 0.3500"),
        "red": ("0.5000", "0.7500", "0.6500", "0.3500 to 1.0000"),
    }
    assert why.stages.notes == (
        "The floor F = 0.4: each p becomes (1 - F) p + F / K, with F / K = 0.2 for K = 2 arms.",
        "No new visitor gets blue: weight 0, or off.",
    )


def test_burn_in_is_a_stage() -> None:
    app = shop(ThompsonBandit(burn_in=1, floor=0.0))
    sums: dict[str, dict[str, float]] = {
        "green": {"pulls": 100, "rewards": 90, "reward": 90.0},
        "red": {"pulls": 100, "rewards": 10, "reward": 10.0},
    }
    adjustment = Adjustment("old", "btn", 1, StatsDelta(sums))
    app.extensions["bandit"].storage.commit(Commit(adjustments=(adjustment,)))
    why, _, _ = ask(app)
    assert why.stages is not None
    assert why.stages.columns == ("policy", "burn-in", "drawn from")
    assert why.stages.rows["blue"][1:] == ("0.3333", "0.6667 to 1.0000")
    assert why.stages.notes == ()


@pytest.mark.parametrize("ttl", [0, 60])
def test_the_counts_may_move_between_the_draw_and_the_explanation(ttl: float) -> None:
    """A learning policy: what is told is what was drawn from, not what follows from it."""
    app = shop(ThompsonBandit(), MAB_STATS_TTL=ttl)
    for _ in range(10):
        why, arm, _ = ask(app)
        uniform, low, high = drawn(why, arm)
        assert low <= uniform <= high
        assert float(decided(why).split()[1]) == pytest.approx(high - low, abs=2e-6)
        assert why.stages is not None
        assert why.stages.heading == "The probabilities of this draw"


@pytest.mark.parametrize(
    "headers", [{"User-Agent": "Googlebot/2.1"}, {"Sec-Purpose": "prefetch"}], ids=["bot", "pre"]
)
def test_who_is_not_counted_is_drawn_all_the_same(headers: dict[str, str]) -> None:
    why, arm, _ = ask(shop(ThompsonBandit()), headers=headers)
    uniform, low, high = drawn(why, arm)
    assert low <= uniform <= high
    assert why.stages is not None
    assert why.stages.heading == "The probabilities of this draw"


def test_a_prefetched_arm_knows_its_own_probability_only() -> None:
    app = shop()
    _, _, cookie = ask(app, headers={"Sec-Purpose": "prefetch"})
    why, _, _ = ask(app, cookie)
    assert decided(why) == "probability 0.333333"
    assert len(why.facts) == 1


def test_a_known_user_on_another_device() -> None:
    app = shop()
    app.extensions["bandit"].hooks.subject = lambda: "ann"
    first, arm, _ = ask(app)
    again, same, _ = ask(app)
    assert same == arm
    assert drawn(first, arm) == drawn(again, arm)


def test_a_visitor_who_signs_in_keeps_the_draw_of_before() -> None:
    app = shop()
    first, arm, cookie = ask(app)
    app.extensions["bandit"].hooks.subject = lambda: "ann"
    again, same, _ = ask(app, cookie)
    assert same == arm
    assert drawn(first, arm) == drawn(again, arm)


def test_a_visitor_whose_arm_was_removed_is_drawn_with_another_number() -> None:
    app = shop()
    first, arm, cookie = ask(app)
    change(app, "weights", {arm: None})
    again, other, cookie = ask(app, cookie)
    assert other != arm
    assert drawn(again, other)[0] != drawn(first, arm)[0]
    third, same, _ = ask(app, cookie)
    assert drawn(third, same) == drawn(again, other)


def test_a_robot_whose_arm_was_removed_is_told_the_number_that_drew_it() -> None:
    """The same as if they were counted."""
    app = shop()
    _, arm, cookie = ask(app)
    change(app, "weights", {arm: None})
    robot, other, _ = ask(app, cookie, headers={"User-Agent": "Googlebot/2.1"})
    human, same, _ = ask(app, cookie)
    assert other == same
    assert drawn(robot, other) == drawn(human, same)


def test_the_holdout_is_no_matter_of_chance() -> None:
    app = shop(Bandit(holdout=0.999))
    why, arm, cookie = ask(app)
    again, _, _ = ask(app, cookie)
    robot, _, _ = ask(app, headers={"User-Agent": "Googlebot/2.1"})
    assert arm == "green"
    for each in (why, again, robot):
        assert each.facts[-1] == (
            "Held out, as 0.999 of all visitors are: they always get the control."
        )
        assert each.stages is None


def test_a_forced_arm_is_no_matter_of_chance() -> None:
    app = shop()
    with force(btn="blue"):
        why, arm, cookie = ask(app)
        robot, _, _ = ask(app, headers={"User-Agent": "Googlebot/2.1"})
    assert arm == "blue"
    again, _, _ = ask(app, cookie)
    for each in (why, robot, again):
        assert each.facts[-1] == "A test forces this arm: no chance, no policy."
        assert each.stages is None


def override(app: Flask) -> dict[str, Any]:
    app.debug = True
    return {"query_string": {"mab_btn": "red"}}


def refuse_consent(app: Flask) -> dict[str, Any]:
    app.extensions["bandit"].hooks.consent = lambda: False
    return {}


def robot_without_consent(app: Flask) -> dict[str, Any]:
    return {**refuse_consent(app), "headers": {"User-Agent": "Googlebot/2.1"}}


def pause(app: Flask) -> dict[str, Any]:
    change(app, "pause")
    return {}


def switch_off(app: Flask) -> dict[str, Any]:
    app.config["MAB_ENABLED"] = False
    return {}


@pytest.mark.parametrize(
    "prepare", [override, refuse_consent, robot_without_consent, pause, switch_off]
)
def test_where_nothing_is_drawn_nothing_is_told_of_chance(
    prepare: Callable[[Flask], dict[str, Any]],
) -> None:
    app = shop()
    arguments = prepare(app)
    assert ask(app, **arguments)[0] == Why((), None)
    if prepare is switch_off:
        assert app.extensions["bandit"]._engine is None


def test_a_closed_bandit_has_no_probabilities_now() -> None:
    app = shop()
    _, arm, cookie = ask(app)
    change(app, "close")
    why, same, _ = ask(app, cookie)
    assert same == arm
    assert decided(why) == "probability 0.333333"
    assert why.stages is None


def test_details_that_were_pruned() -> None:
    app = shop()
    _, _, cookie = ask(app)
    app.extensions["bandit"].storage.prune(before=4e9)
    why, _, _ = ask(app, cookie)
    assert why.facts[0].startswith("The details of the decision cannot be read")


def test_the_bounds_are_those_of_the_draw_whatever_the_code_has_now() -> None:
    app = shop()
    first, arm, cookie = ask(app)
    bandit = app.extensions["bandit"].registry["btn"]
    bandit._arms = {arm: bandit._arms[arm]}
    bandit._arms["new"] = Arm("new", None)
    why, same, _ = ask(app, cookie)
    assert same == arm
    assert drawn(why, arm) == drawn(first, arm)


def test_a_storage_that_mixes_up_the_arms_hides_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    app = shop()
    storage = app.extensions["bandit"].storage
    get_decisions = storage.get_decisions

    def mixed(ids: Any, timeout: float | None = None) -> dict[str, Decision]:
        return {
            id_: replace(found, propensities=dict(reversed((found.propensities or {}).items())))
            for id_, found in get_decisions(ids, timeout).items()
        }

    monkeypatch.setattr(storage, "get_decisions", mixed)
    shown = [ask(app)[:2] for _ in range(40)]
    # Red stays in the middle. That 40 visitors see nothing else comes once in 10^19 runs.
    assert {arm for _, arm in shown} > {"red"}
    for why, arm in shown:
        assert decided(why) == "probability 0.333333"
        assert len(why.facts) == (2 if arm == "red" else 1)


def test_an_explanation_counts_and_changes_nothing() -> None:
    app = shop()
    _, _, cookie = ask(app)
    storage = app.extensions["bandit"].storage
    counts = storage.read_counts()
    _, _, after = ask(app, cookie)
    assert after == cookie
    assert storage.read_counts() == counts
