"""Random visitors of two workers on one storage that fails at times, against what they saw.

Nothing may be counted twice, joined to another decision, or learned otherwise than the log says.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from flask import Flask, request

from flask_bandit import reward, suggest_arm_for
from flask_bandit.bandits import LinThompsonBandit
from flask_bandit.counting import is_for_evaluation
from flask_bandit.errors import StorageError
from flask_bandit.model import BanditKey, Counts, Decision, FloatArray, add_terms
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Commit, CommitResult
from flask_bandit.storage.transfer import audit
from flask_bandit.web.tokens import reward_by_token

from .context_shop import FEATURES, USER, asked_context, shop, state_of

STEPS = 250


class Faulty(MemoryBanditStorage):
    """Fails with a probability before it does something, and after it has."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.chance = 0.0
        self.faults = 0
        self.made: dict[str, Decision] = {}

    def _fail(self, share: float) -> None:
        if self.rng.random() < self.chance * share:
            self.faults += 1
            raise StorageError("a fault")

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        self._fail(0.5)
        result = super().commit(commit, timeout)
        for write in commit.decisions:
            if write.decision.id in result.new:
                self.made[write.decision.id] = write.decision
        self._fail(0.5)
        return result

    def read_counts(self, timeout: float | None = None) -> Counts:
        self._fail(0.2)
        return super().read_counts(timeout)

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        self._fail(0.2)
        return super().get_decisions(ids, timeout)


class Held(NamedTuple):
    """The decision that a cookie is at; empty for none."""

    id: str = ""
    version: int = 0


class Browser:
    """What a visitor's browser keeps."""

    def __init__(self) -> None:
        self.cookie: str | None = None
        self.user: str | None = None


class Answer(NamedTuple):
    """What a request did.

    :param is_sure: nothing failed meanwhile
    """

    text: str
    before: Held
    after: Held
    is_sure: bool


class Traffic:
    """Requests, and which decisions they may and have to reward.

    :param may: rewarded, or not if something failed
    :param must: rewarded
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.storage = Faulty(self.rng)
        options = {name: 0.3 for name in ("evaluation", "holdout") if self.rng.random() < 0.5}
        self.workers = [worker(self.storage, options) for _ in range(2)]
        self.browsers = [Browser() for _ in range(5)]
        self.tokens: list[tuple[str, str]] = []
        self.may: set[str] = set()
        self.must: set[str] = set()

    def held(self, cookie: str | None) -> Held:
        content = state_of(self.workers[0]).codec.loads(cookie or "")
        row = content.assignments.get("offer")
        if row is None:
            return Held()
        return Held(row.decision_id(content.visitor, "offer"), row.version)

    def send(self, browser: Browser, method: str, path: str, **data: str) -> Answer:
        client = self.rng.choice(self.workers).test_client()
        if browser.cookie:
            client.set_cookie("MAB", browser.cookie)
        faults = self.storage.faults
        self.storage.chance = self.rng.choice([0.0, 0.0, 0.0, 0.5])
        headers = {USER: browser.user} if browser.user else {}
        response = client.open(path, method=method, headers=headers, data=data)
        self.storage.chance = 0.0
        assert response.status_code == 200
        found = client.get_cookie("MAB")
        cookie = found.value if found else None
        answer = Answer(
            response.text,
            self.held(browser.cookie),
            self.held(cookie),
            self.storage.faults == faults,
        )
        if self.rng.random() < 0.85:  # else the answer is lost, and sent again with other contents
            browser.cookie = cookie
        return answer

    def rewarded(self, id_: str, is_sure: bool) -> None:
        self.may.add(id_)
        if is_sure:
            self.must.add(id_)

    def step(self) -> None:
        rng, browser = self.rng, self.rng.choice(self.browsers)
        if rng.random() < 0.05:
            browser.user = rng.choice([None, "ann", "bob"])
        if rng.random() < 0.03:
            browser.cookie = rng.choice(self.browsers).cookie
        if rng.random() < 0.015:
            state_of(rng.choice(self.workers)).engine.change("offer", "reset")
        actions: list[Callable[[Browser, int], None]] = [self.look, self.buy, self.both]
        actions += [self.before, self.token, self.spend]
        (action,) = rng.choices(actions, [6, 3, 2, 1, 1, 1])
        action(browser, rng.randrange(4))

    def look(self, browser: Browser, age: int) -> None:
        self._drawn(self.send(browser, "GET", f"/offer?age={age}"), age)

    def buy(self, browser: Browser, age: int) -> None:
        version = state_of(self.workers[0]).engine.version("offer")
        answer = self.send(browser, "POST", "/buy")
        if answer.before.version == version:
            self.rewarded(answer.before.id, answer.is_sure)

    def both(self, browser: Browser, age: int) -> None:
        answer = self.send(browser, "POST", f"/both?age={age}")
        self._drawn(answer, age)
        if answer.after != answer.before:
            self.rewarded(answer.after.id, answer.is_sure)

    def before(self, browser: Browser, age: int) -> None:
        version = state_of(self.workers[0]).engine.version("offer")
        answer = self.send(browser, "POST", f"/before?age={age}")
        self._drawn(answer, age)
        if answer.before.version == version:
            self.rewarded(answer.before.id, answer.is_sure)

    def token(self, browser: Browser, age: int) -> None:
        answer = self.send(browser, "GET", f"/token?age={age}")
        assert answer.text or not answer.is_sure
        if answer.text:
            self.tokens.append((answer.text, answer.after.id))

    def spend(self, browser: Browser, age: int) -> None:
        if self.tokens:
            token, id_ = self.rng.choice(self.tokens)
            answer = self.send(Browser(), "POST", "/spend", token=token)
            assert answer.text in ("True", "False") or not answer.is_sure
            self.rewarded(id_, answer.is_sure)

    def _drawn(self, answer: Answer, age: int) -> None:
        """Expect that the cookie is at the decision that was shown."""
        if answer.is_sure:
            made = self.storage.made[answer.after.id]
            assert (made.arm, made.context) == (answer.text, {"age": float(age)})


def worker(storage: Faulty, options: dict[str, Any]) -> Flask:
    bandit = LinThompsonBandit(FEATURES, **options)
    for arm in "abc":
        bandit.add_arm(arm)
    app = shop(bandit, storage, MAB_STATS_TTL=0.0, MAB_LEARN_TTL=0.0)

    @app.post("/both")
    def both() -> str:
        arm, _ = suggest_arm_for("offer", context=asked_context)
        reward("offer")
        return arm

    @app.post("/before")
    def before() -> str:
        reward("offer")
        return suggest_arm_for("offer", context=asked_context)[0]

    @app.post("/spend")
    def spend() -> str:
        try:
            return str(reward_by_token(state_of(app), request.form["token"], 1.0, None, ""))
        except StorageError:
            return "later"

    # Each request tries, whatever failed before.
    state_of(app).engine._breaker._probe_every = 0.0
    return app


def relearned(traffic: Traffic) -> dict[BanditKey, dict[str, dict[str, FloatArray]]]:
    """Return the arrays that follow from the log."""
    bandit = state_of(traffic.workers[0]).bandits["offer"]
    arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = defaultdict(dict)
    for entry in traffic.storage.iter_log():
        decision = entry.decision
        if not (decision.is_held_out or is_for_evaluation(bandit.options, decision)):
            total = arrays[decision.key]
            add_terms(total, bandit.policy.on_decision(decision).terms)
            for given in entry.rewards:
                add_terms(total, bandit.policy.on_reward(decision, given.value).terms)
    return arrays


@pytest.mark.parametrize("seed", range(8))
def test_each_decision_and_reward_counts_once_where_it_belongs(seed: int) -> None:
    traffic = Traffic(seed)
    for _ in range(STEPS):
        traffic.step()
    assert traffic.storage.faults
    assert traffic.must
    entries = list(traffic.storage.iter_log())
    assert {entry.decision.id for entry in entries} == traffic.storage.made.keys()
    joined = {entry.decision.id for entry in entries if entry.rewards}
    assert traffic.must <= joined <= traffic.may
    assert all(len(entry.rewards) <= 1 for entry in entries)
    assert audit(traffic.storage) == []
    expected, found = relearned(traffic), traffic.storage.read_arrays()
    assert found.keys() == expected.keys()
    for key, arms in found.items():
        assert arms.keys() == expected[key].keys()
        for arm, row in arms.items():
            assert row.keys() == expected[key][arm].keys()
            for name, array in row.items():
                np.testing.assert_allclose(array, expected[key][arm][name], atol=1e-9)
