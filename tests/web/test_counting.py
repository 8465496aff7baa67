"""What counts as a pull and as a reward."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect

from flask_bandit import choose_arm, reward, reward_endpt, reward_recorded, suggest_arm_for
from flask_bandit.bandits import ThompsonBandit

from .conftest import colours, cookie_value, make_app, pulls, rewards, set_cookies


def test_a_visitor_is_pulled_once_and_keeps_the_arm(app: Flask) -> None:
    client = app.test_client()
    first = client.get("/btn")
    again = client.get("/btn")
    assert first.text == again.text
    assert pulls(app) == 1
    assert set_cookies(first)
    assert not set_cookies(again)


def test_another_bandit_s_assignment_counts_no_pull() -> None:
    app = make_app("one", "two")
    client = app.test_client()
    client.get("/one")
    client.get("/two")
    client.get("/one")
    assert (pulls(app, "one"), pulls(app, "two")) == (1, 1)


def test_a_click_rewards_once_whoever_replays_it(app: Flask) -> None:
    client = app.test_client()
    client.get("/btn")
    for _ in range(3):
        client.post("/btn/click")
    thief = app.test_client()
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    thief.set_cookie("MAB", cookie.value)
    thief.post("/btn/click")
    assert rewards(app) == 1


def test_a_click_without_an_arm_rewards_nothing(app: Flask) -> None:
    response = app.test_client().post("/btn/click")
    assert response.status_code == 200
    assert rewards(app) == 0
    assert not set_cookies(response)


def test_three_parallel_requests_on_four_pages_count_one_pull_each() -> None:
    names = ("one", "two", "three", "four")
    # Patient: on a busy machine a thread may wait for its turn longer than visitors should.
    app = make_app("entry", *names, MAB_STORAGE_TIMEOUT=60)
    with ThreadPoolExecutor(6) as pool:
        for _ in range(1000):
            cookie = cookie_value(app.test_client().get("/entry"))

            def load(name: str, cookie: str = cookie) -> str:
                client = app.test_client()
                client.set_cookie("MAB", cookie)
                return client.get(f"/{name}").text

            texts = list(pool.map(load, names * 3))
            # The first answer to be stored wins; with a uniform bandit all draw the same.
            assert texts[:4] == texts[4:8] == texts[8:]
    assert [pulls(app, name) for name in names] == [1000] * 4


def _answering(answer: Any, **options: Any) -> Flask:
    app = make_app()

    @app.post("/do")
    @reward_endpt("btn", 1.0, **options)
    def do() -> Any:
        return answer() if callable(answer) else answer

    return app


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        ("fine", 1),
        (("made", 201), 1),
        (("", 204), 1),
        (lambda: redirect("/btn", 303), 1),
        (lambda: redirect("/btn", 302), 0),
        (("no", 404), 0),
        (lambda: abort(403), 0),
        (("no", 500), 0),
        (lambda: 1 // 0, 0),
    ],
)
def test_a_reward_endpoint_rewards_on_2xx_and_303(answer: Any, counted: int) -> None:
    app = _answering(answer)
    client = app.test_client()
    client.get("/btn")
    client.post("/do")
    assert rewards(app) == counted


@pytest.mark.parametrize("status", [302, 404, 500])
def test_reward_if_decides_on_any_answer_that_a_view_gives(status: int) -> None:
    app = _answering(("x", status), reward_if=lambda response: True)
    client = app.test_client()
    client.get("/btn")
    client.post("/do")
    assert rewards(app) == 1


def test_an_escaped_exception_never_rewards() -> None:
    app = _answering(lambda: 1 // 0, reward_if=lambda response: True)
    client = app.test_client()
    client.get("/btn")
    assert client.post("/do").status_code == 500
    assert rewards(app) == 0


def test_an_unrewarded_redirect_says_the_fix_in_debug(caplog: pytest.LogCaptureFixture) -> None:
    app = _answering(lambda: redirect("/btn"))
    client = app.test_client()
    client.get("/btn")
    for debug in (False, True):
        app.debug = debug
        client.post("/do")
        assert ("redirect with code=303" in caplog.text) is debug


def test_several_rewards_of_one_view_are_one_reward_of_their_sum() -> None:
    app = make_app()

    @app.post("/buy")
    @reward_endpt("btn", 2.0)
    @reward_endpt("btn", 3.0)
    def buy() -> str:
        assert reward("btn", 5.0)
        return "bought"

    client = app.test_client()
    arm = client.get("/btn").text.lstrip("#")
    client.post("/buy")
    with app.app_context():
        stats = app.extensions["bandit"].engine.stats()["btn"][arm]
    assert (stats.rewards, stats.reward, stats.reward_sq) == (1, 10.0, 100.0)


def test_a_sum_that_the_policy_cannot_learn_from_is_an_error() -> None:
    app = make_app("unused", TESTING=True)
    bandit = ThompsonBandit()
    bandit.add_arm("only")
    app.add_bandit("btn", bandit)  # type: ignore[attr-defined]

    @app.post("/buy")
    def buy() -> str:
        suggest_arm_for("btn")
        reward("btn", 1.0)
        reward("btn", 0.5)
        return "bought"

    with pytest.raises(ValueError, match="the reward is 1.5"):
        app.test_client().post("/buy")


def test_decorators_whose_sum_is_too_large_are_found_at_the_first_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app("unused")
    bandit = ThompsonBandit()
    bandit.add_arm("only")
    app.add_bandit("btn", bandit)  # type: ignore[attr-defined]

    @app.post("/buy")
    @reward_endpt("btn")
    @reward_endpt("btn")
    def buy() -> str:
        return "bought"

    app.test_client().get("/unused")
    assert "'buy' rewards 'btn' with 2" in caplog.text


def test_inline_reward_tells_whether_there_is_an_arm_and_counts_on_a_redirect() -> None:
    app = make_app()

    @app.post("/buy")
    def buy() -> Any:
        return redirect("/btn") if reward("btn", 1.0) else ("none", 200)

    client = app.test_client()
    assert client.post("/buy").text == "none"
    client.get("/btn")
    assert client.post("/buy").status_code == 302
    assert rewards(app) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much"])
def test_a_reward_that_is_no_finite_number_is_an_error(value: Any) -> None:
    app = make_app(TESTING=True)

    @app.post("/buy")
    def buy() -> str:
        reward("btn", value)
        return "bought"

    client = app.test_client()
    client.get("/btn")
    with pytest.raises((ValueError, TypeError)):
        client.post("/buy")


def test_the_signal_tells_new_rewards_only(app: Flask) -> None:
    heard = []

    def hear(sender: Flask, reward: Any) -> None:
        heard.append((sender, reward.bandit, reward.value))

    client = app.test_client()
    client.get("/btn")
    with reward_recorded.connected_to(hear, app):
        client.post("/btn/click")
        client.post("/btn/click")
    assert heard == [(app, "btn", 1.0)]


def _choosing(answer: Any) -> Flask:
    app = make_app()

    @app.get("/page")
    @choose_arm("btn")
    def page(btn: str) -> Any:
        return answer()

    return app


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (lambda: "fine", 1),
        (lambda: redirect("/"), 1),
        (lambda: 1 // 0, 1),
        (lambda: abort(503), 1),
        (lambda: abort(404), 0),
        (lambda: ("no", 403), 0),
    ],
)
def test_decisions_count_on_5xx_and_not_on_4xx(answer: Any, counted: int) -> None:
    app = _choosing(answer)
    response = app.test_client().get("/page")
    assert pulls(app) == counted
    assert len(set_cookies(response)) == counted


@pytest.mark.parametrize("config", [{"TESTING": True}, {"DEBUG": True}])
def test_an_escaped_exception_still_commits_the_decision(config: dict[str, Any]) -> None:
    app = make_app(**config)

    @app.get("/page")
    @choose_arm("btn")
    def page(btn: str) -> str:
        raise RuntimeError("the arm crashes")

    if "DEBUG" in config:
        app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(RuntimeError, match="the arm crashes"):
        app.test_client().get("/page")
    assert pulls(app) == 1


def test_an_arm_first_chosen_on_an_error_page_is_not_counted(app: Flask) -> None:
    @app.errorhandler(404)
    def soft_not_found(error: Exception) -> str:
        return suggest_arm_for("btn")[0]

    @app.errorhandler(500)
    def broken(error: Exception) -> tuple[str, int]:
        return suggest_arm_for("btn")[0], 500

    @app.get("/crash")
    def crash() -> str:
        raise RuntimeError

    client = app.test_client()
    for path in ("/wp-login.php", "/crash"):
        response = client.get(path)
        assert response.text in ("green", "red", "blue")
        assert not set_cookies(response)
    assert pulls(app) == 0


def test_an_error_inside_the_view_s_own_except_block_is_counted(app: Flask) -> None:
    @app.get("/careful")
    def careful() -> str:
        try:
            raise KeyError("missing")
        except KeyError:
            return suggest_arm_for("btn")[0]

    app.test_client().get("/careful")
    assert pulls(app) == 1


def test_head_gets_an_arm_and_counts_nothing(app: Flask) -> None:
    client = app.test_client()
    assert not set_cookies(client.head("/btn"))
    assert pulls(app) == 0
    client.get("/btn")
    client.head("/btn/click")
    assert rewards(app) == 0


@pytest.mark.parametrize(
    "header",
    [{"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}, {"X-Moz": "prefetch"}],
)
def test_a_prefetched_arm_is_kept_and_counted_by_the_next_real_request(
    app: Flask, header: dict[str, str]
) -> None:
    client = app.test_client()
    shown = client.get("/btn", headers=header).text
    client.get("/btn", headers=header)
    client.post("/btn/click", headers=header)
    assert (pulls(app), rewards(app)) == (0, 0)
    assert client.get("/btn").text == shown
    assert client.get("/btn").text == shown
    assert pulls(app) == 1


def test_a_prefetched_arm_is_counted_by_its_reward_with_its_own_probability(app: Flask) -> None:
    client = app.test_client()
    shown = client.get("/btn", headers={"Sec-Purpose": "prefetch"}).text.lstrip("#")
    client.post("/btn/click")
    client.post("/btn/click")
    assert (pulls(app), rewards(app)) == (1, 1)
    (entry,) = app.extensions["bandit"].storage.iter_log("btn")
    assert entry.decision.arm == shown
    assert entry.decision.propensities == {shown: pytest.approx(1 / 3)}


def test_every_decision_is_logged_with_its_whole_vector(app: Flask) -> None:
    app.test_client().get("/btn")
    (entry,) = app.extensions["bandit"].storage.iter_log()
    assert set(entry.decision.propensities) == {"green", "red", "blue"}
    assert sum(entry.decision.propensities.values()) == pytest.approx(1.0)
    assert entry.decision.policy_version == "uniform()"


def test_choosing_and_rewarding_in_one_request_counts_both(app: Flask) -> None:
    @app.get("/both")
    @choose_arm("btn")
    @reward_endpt("btn")
    def both(btn: str) -> Response:
        return Response(btn)

    app.test_client().get("/both")
    assert (pulls(app), rewards(app)) == (1, 1)


def test_a_reward_of_a_removed_arm_goes_to_the_arm_that_earned_it() -> None:
    app = make_app()
    client = app.test_client()
    arm = client.get("/btn").text.lstrip("#")
    kept = [a for a in ("green", "red", "blue") if a != arm]
    storage = app.extensions["bandit"].storage
    new = make_app("other", MAB_STORAGE_ENGINE=storage)
    new.add_bandit("btn", colours(*kept))  # type: ignore[attr-defined]

    @new.post("/click")
    @reward_endpt("btn")
    def click() -> str:
        return "thanks"

    cookie = client.get_cookie("MAB")
    assert cookie is not None
    later = new.test_client()
    later.set_cookie("MAB", cookie.value)
    later.post("/click")
    ((_, counts),) = storage.read_counts().items()
    assert counts[arm] == {"pulls": 1, "rewards": 1, "reward": 1.0, "reward_sq": 1.0}
