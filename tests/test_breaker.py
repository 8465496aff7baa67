"""The circuit breaker and the deadline."""

from __future__ import annotations

import pytest

from flask_bandit.breaker import Attempt, Call, CircuitBreaker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_deadline_covers_all_that_one_request_spends(clock: list[float]) -> None:
    attempt = Attempt(1.0)
    with attempt as left:
        assert left == 1.0
        clock[0] += 0.25
    clock[0] += 100.0  # the view's own time is not the storage's
    with attempt as left:
        assert left == 0.75
        clock[0] += 2.0
    with attempt as left:
        assert left == 0.0


def test_it_opens_once_and_lets_one_probe_through_every_half_second(clock: list[float]) -> None:
    breaker = CircuitBreaker()
    attempt = Attempt(1.0)
    assert breaker.allows(attempt)
    assert breaker.failed(attempt, Call.READ)
    assert not breaker.allows(attempt), "a request that failed does not try again"
    assert not breaker.allows(Attempt(1.0))
    clock[0] += 0.6
    probe = Attempt(1.0)
    assert breaker.allows(probe)
    assert breaker.allows(probe), "a probe is one whole request"
    assert not breaker.allows(Attempt(1.0))
    assert not breaker.failed(probe, Call.READ), "the same outage"
    clock[0] += 0.6
    assert breaker.allows(Attempt(1.0))
    assert breaker.succeeded(Call.READ)
    assert not breaker.succeeded(Call.READ)
    assert breaker.allows(Attempt(1.0))
    assert not breaker.is_open


def test_a_failed_write_is_mended_by_a_write_only(clock: list[float]) -> None:
    breaker = CircuitBreaker()
    breaker.failed(Attempt(1.0), Call.WRITE)
    clock[0] += 1.0
    assert not breaker.succeeded(Call.READ)
    assert breaker.is_open
    assert breaker.succeeded(Call.WRITE)
    assert not breaker.is_open


def test_a_failed_read_is_not_mended_by_reading_what_operators_decided(
    clock: list[float],
) -> None:
    breaker = CircuitBreaker()
    breaker.failed(Attempt(1.0), Call.READ)
    breaker.failed(Attempt(1.0), Call.CONTROL)
    assert not breaker.succeeded(Call.CONTROL)
    assert breaker.is_open
    assert breaker.succeeded(Call.READ)
    breaker.failed(Attempt(1.0), Call.CONTROL)
    assert breaker.succeeded(Call.CONTROL)
    assert not breaker.is_open
