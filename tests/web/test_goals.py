"""Several goals of one bandit, and how each of them counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_bandit import BanditMiddleware, choose_arm, reward, reward_endpt
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.hashing import reward_id
from flask_bandit.model import ArmStats
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage

from .conftest import cookie_value

PREFETCH = {"Sec-Purpose": "prefetch"}
GOALS = {"order": "every", "revenue": "numeric"}


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BanditStorage:
    if request.param == "memory":
        return MemoryBanditStorage()
    return SQLiteBanditStorage(str(tmp_path / "bandits.db"))


def shop(storage: BanditStorage, bandit: Bandit | None = None) -> tuple[Flask, BanditMiddleware]:
    """Return an app with one bandit, a page, and a button for each way to reward."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage, MAB_STORAGE_TIMEOUT=30)
    mab = BanditMiddleware(app)
    bandit = Bandit(goals=GOALS) if bandit is None else bandit
    for arm in ("green", "red", "blue"):
        bandit.add_arm(arm, arm)
    mab.add_bandit("btn", bandit)
    app.register_blueprint(mab.reward_blueprint())

    @app.get("/")
    @choose_arm("btn")
    def page(btn: str) -> str:
        return btn

    @app.get("/token")
    def token() -> str:
        return mab.reward_token("btn", goal="signup")

    @app.post("/click")
    @reward_endpt("btn")
    def click() -> str:
        return "thanks"

    @app.post("/signup")
    @reward_endpt("btn", 1.0, goal="signup")
    def signup() -> str:
        return "thanks"

    @app.post("/pay/<goal>/<float:value>/<event>")
    def pay(goal: str, value: float, event: str) -> str:
        return str(reward("btn", value, goal=goal, event=event.strip("-")))

    return app, mab


def test_a_bandit_learns_from_its_own_goal_and_counts_the_others(storage: BanditStorage) -> None:
    app, mab = shop(storage, ThompsonBandit(goal="signup", goals=GOALS))
    visitor = app.test_client()
    arm = visitor.get("/").text
    for path in ("/signup", "/pay/click/4.0/-", "/pay/click/5.0/-"):
        visitor.post(path)
    assert mab.stats("btn")[arm] == ArmStats(1, 1, 1.0, 1.0)
    assert mab.stats("btn", goal="signup") == mab.stats("btn")
    assert mab.stats("btn", goal="click")[arm] == ArmStats(1, 1, 4.0, 16.0)
    assert mab.stats("btn", goal="nothing")[arm] == ArmStats(1)


def test_a_goal_counts_once_whatever_event_a_call_names(storage: BanditStorage) -> None:
    app, mab = shop(storage)
    visitor = app.test_client()
    arm = visitor.get("/").text
    for event in ("-", "one", "two"):
        visitor.post(f"/pay/signup/1.0/{event}")
    assert mab.stats("btn", goal="signup")[arm].rewards == 1


def test_a_goal_that_counts_every_time_counts_each_call_and_each_event_once(
    storage: BanditStorage,
) -> None:
    app, mab = shop(storage)
    visitor = app.test_client()
    arm = visitor.get("/").text
    for event in ("-", "-", "order-17", "order-17", "order-18"):
        visitor.post(f"/pay/order/1.0/{event}")
    assert mab.stats("btn", goal="order")[arm] == ArmStats(1, 4, 4.0, 4.0)


def test_revenue_is_summed(storage: BanditStorage) -> None:
    app, mab = shop(storage)
    visitor = app.test_client()
    arm = visitor.get("/").text
    for value in (19.5, 30.0):
        visitor.post(f"/pay/revenue/{value}/-")
    assert mab.stats("btn", goal="revenue")[arm] == ArmStats(1, 2, 49.5, 19.5**2 + 900.0)


def test_goals_of_one_request_are_rewarded_apart(storage: BanditStorage) -> None:
    app, mab = shop(storage)

    @app.post("/both")
    @reward_endpt("btn", 1.0, goal="signup")
    @reward_endpt("btn", 3.0)
    @reward_endpt("btn", 4.0, goal="signup")
    def both() -> str:
        return "thanks"

    visitor = app.test_client()
    arm = visitor.get("/").text
    visitor.post("/both")
    assert mab.stats("btn")[arm].reward == 3.0
    assert mab.stats("btn", goal="signup")[arm] == ArmStats(1, 1, 5.0, 25.0)


@pytest.mark.parametrize("fields", [{"goal": ""}, {"goal": "a\nb"}, {"goal": "order", "event": 7}])
def test_a_goal_or_an_event_that_no_storage_takes_is_refused_at_once(
    fields: dict[str, Any],
) -> None:
    app, _ = shop(MemoryBanditStorage())
    with app.test_request_context(), pytest.raises(ValueError, match="write a text of"):
        reward("btn", 1.0, **fields)


def test_a_goal_with_a_colon_is_no_event_of_another_goal() -> None:
    ids = {
        reward_id("d", "a:b"),
        reward_id("d", "a", "b"),
        reward_id("d", "a:b", "c"),
        reward_id("d", "a", "b:c"),
        reward_id("d", "a%3Ab"),
    }
    assert len(ids) == 5


def test_the_counts_of_the_version_before_a_reset_can_be_read(storage: BanditStorage) -> None:
    app, mab = shop(storage)
    visitor = app.test_client()
    arm = visitor.get("/").text
    visitor.post("/signup")
    app.extensions["bandit"].engine.change("btn", "reset")
    assert mab.stats("btn")[arm] == ArmStats()
    assert mab.stats("btn", version=1)[arm] == ArmStats(1)
    assert mab.stats("btn", version=1, goal="signup")[arm] == ArmStats(1, 1, 1.0, 1.0)
    for version in (0, 3):
        with pytest.raises(ValueError, match="write one of 1 to 2"):
            mab.stats("btn", version=version)


def test_an_older_version_has_the_arms_that_the_code_lost() -> None:
    storage = MemoryBanditStorage()
    app, _ = shop(storage)
    arm = app.test_client().get("/").text
    other = Flask("later")
    other.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab = BanditMiddleware(other)
    bandit = Bandit()
    bandit.add_arm("new")
    mab.add_bandit("btn", bandit)
    assert list(mab.stats("btn")) == ["new"]
    assert mab.stats("btn", version=1) == {"new": ArmStats(), arm: ArmStats(1)}


def test_decorators_of_one_goal_are_added_up_when_the_app_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, _ = shop(MemoryBanditStorage(), ThompsonBandit(goal="signup"))

    @app.post("/apart")
    @reward_endpt("btn", 1.0)
    @reward_endpt("btn", 9.0, goal="click")
    def apart() -> str:
        return ""

    @app.post("/together")
    @reward_endpt("btn", 1.0)
    @reward_endpt("btn", 1.0, goal="signup")
    def together() -> str:
        return ""

    @app.post("/nameless")
    @reward_endpt("btn", 1.0, goal="")
    def nameless() -> str:
        return ""

    app.test_client().get("/")
    assert "'together' rewards 'btn' with 2" in caplog.text
    assert "'nameless' rewards 'btn' with 1: the goal is ''" in caplog.text
    assert "'apart'" not in caplog.text


def test_a_get_reward_endpoint_works_and_warns_in_debug_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, mab = shop(MemoryBanditStorage())

    @app.get("/old")
    @reward_endpt("btn")
    def old() -> str:
        return "thanks"

    for debug in (False, True):
        app.debug = debug
        for _ in range(2):
            visitor = app.test_client()
            visitor.get("/")
            visitor.post("/click")
            visitor.get("/old")
        assert caplog.text.count("methods=['POST']") == int(debug)
    assert sum(arm.rewards for arm in mab.stats("btn").values()) == 4


def test_impossible_counts_split_690_513_402(storage: BanditStorage) -> None:
    """Rewarded decisions never outnumber decisions, whoever replays what, in whatever order."""
    app, mab = shop(storage)
    visitors = 40
    signed_up: Counter[int] = Counter()
    jobs: list[Callable[[], object]] = []
    chance = random.Random(690)
    cookies = []
    for number in range(visitors):
        headers = chance.choice([{}, PREFETCH])
        cookie = cookie_value(app.test_client().get("/", headers=headers))
        cookies.append(cookie)
        token = _with(app, cookie).get("/token", headers=headers).text
        for _ in range(chance.randrange(8)):
            move = chance.choice(["page", "prefetch", "click", "signup", "event", "token"])
            signed_up[number] += move in ("signup", "event", "token")
            jobs.append(_move(app, move, cookie, token, chance.choice(["-", "a", "b"])))
    chance.shuffle(jobs)
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
            for goal in ("reward", "signup"):
                stats = mab.stats("btn", goal=goal).values()
                assert all(arm.rewards <= arm.pulls for arm in stats)
    for cookie in cookies:  # until then, the tokens of prefetched pages wait
        _with(app, cookie).get("/")
    stats = mab.stats("btn", goal="signup").values()
    assert sum(arm.pulls for arm in stats) == visitors
    assert sum(arm.rewards for arm in stats) == sum(n > 0 for n in signed_up.values())


def _with(app: Flask, cookie: str) -> Any:
    client = app.test_client()
    client.set_cookie("MAB", cookie)
    return client


def _move(app: Flask, move: str, cookie: str, token: str, event: str) -> Callable[[], object]:
    """Return one request of a visitor; the cookie may be older than what happened since."""

    def run() -> None:
        visitor = _with(app, cookie)
        if move in ("page", "prefetch"):
            visitor.get("/", headers=PREFETCH if move == "prefetch" else {})
        elif move == "token":
            assert app.test_client().post("/bandit/reward", data=token).status_code == 204
        elif move == "event":
            visitor.post(f"/pay/signup/1.0/{event}")
        else:
            visitor.post(f"/{move}")

    return run
