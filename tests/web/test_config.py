"""Settings: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flask_bandit import ConfigurationError
from flask_bandit.storage import JSONBanditStorage, MemoryBanditStorage
from flask_bandit.web.config import ONE_YEAR, BanditConfig

from .conftest import add_pages, make_app, pulls


def test_defaults() -> None:
    config = BanditConfig.from_mapping({"SECRET_KEY": "x", "DEBUG": True})
    assert config == BanditConfig()
    assert (config.cookie_name, config.cookie_ttl, config.storage_timeout) == ("MAB", ONE_YEAR, 1)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BanditConfig().cookie_name = "other"  # type: ignore[misc]


def test_an_unknown_key_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"MAB_COOKIE_NAM; did you mean 'MAB_COOKIE_NAME'"):
        BanditConfig.from_mapping({"MAB_COOKIE_NAM": "x"})


@pytest.mark.parametrize(
    ("text", "value"), [("False", False), ("true", True), ("0", False), (1, True), ("on", True)]
)
def test_booleans_from_the_environment(text: Any, value: bool) -> None:
    config = BanditConfig.from_mapping({"MAB_DEBUG_HEADERS": text, "MAB_COOKIE_SECURE": text})
    assert config.debug_headers is value
    assert config.cookie_secure is value


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAB_DEBUG_HEADERS": "maybe"},
        {"MAB_COOKIE_TTL": 0},
        {"MAB_COOKIE_TTL": "a year"},
        {"MAB_COOKIE_TTL": True},
        {"MAB_STORAGE_TIMEOUT": -1},
        {"MAB_STORAGE_TIMEOUT": float("inf")},
        {"MAB_STATS_TTL": -1},
        {"MAB_COOKIE_NAME": ""},
        {"MAB_COOKIE_SAMESITE": "lax"},
        {"MAB_STORAGE_OPTS": "./file.json"},
        {"MAB_BANDITS": ["btn"]},
        {"MAB_STORAGE_URI": "memory://", "MAB_STORAGE_ENGINE": "MemoryBanditStorage"},
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error_that_names_its_key(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BanditConfig.from_mapping(wrong)


@pytest.mark.parametrize(
    "config",
    [
        {"MAB_STORAGE_ENGINE": "JSONBanditStorage", "MAB_STORAGE_OPTS": ("{path}",)},
        {"MAB_STORAGE_ENGINE": "JSONBanditStorage", "MAB_STORAGE_OPTS": {"path": "{path}"}},
        {
            "MAB_STORAGE_ENGINE": "flask_bandit.storage.JSONBanditStorage",
            "MAB_STORAGE_OPTS": ["{path}"],
        },
        {"MAB_STORAGE_ENGINE": None, "MAB_STORAGE_URI": "json:///{path}"},
        {
            "MAB_STORAGE_ENGINE": None,
            "MAB_STORAGE_URI": "json:///{path}",
            "MAB_STORAGE_OPTS": {"fsync": True},
        },
    ],
)
def test_the_ways_to_name_a_storage(config: dict[str, Any], tmp_path: Path) -> None:
    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{path}", str(tmp_path / "b.json"))
        if isinstance(value, dict):
            return {key: fill(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(fill(part) for part in value)
        return value

    app = make_app(**{key: fill(value) for key, value in config.items()})
    app.test_client().get("/btn")
    assert isinstance(app.extensions["bandit"].storage, JSONBanditStorage)
    assert pulls(app) == 1
    options = app.config.get("MAB_STORAGE_OPTS")
    fsync = isinstance(options, dict) and options.get("fsync", False)
    assert app.extensions["bandit"].storage.fsync == fsync
    app.extensions["bandit"].storage.close()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"MAB_STORAGE_URI": "jsn:///x"}, "did you mean 'json'"),
        ({"MAB_STORAGE_URI": "bandits.json"}, "lacks '://'"),
        ({"MAB_STORAGE_ENGINE": "JSONStorage"}, "did you mean 'JSONBanditStorage'"),
        ({"MAB_STORAGE_ENGINE": "nowhere.Storage"}, "cannot import 'nowhere.Storage'"),
        ({"MAB_STORAGE_ENGINE": "builtins.dict"}, "inherit flask_bandit.storage.BanditStorage"),
        ({"MAB_STORAGE_ENGINE": 7}, "class name"),
        ({"MAB_STORAGE_URI": "memory://", "MAB_STORAGE_OPTS": ("x",)}, "options by name"),
        ({"MAB_STORAGE_URI": "memory://", "MAB_STORAGE_OPTS": {"x": 1}}, "remove x"),
        (
            {"MAB_STORAGE_ENGINE": "MemoryBanditStorage", "MAB_STORAGE_OPTS": (1, 2)},
            "MAB_STORAGE_OPTS",
        ),
    ],
)
def test_a_storage_that_cannot_be_made_says_why(config: dict[str, Any], words: str) -> None:
    app = make_app(TESTING=True, **{"MAB_STORAGE_ENGINE": None, **config})
    with pytest.raises(ConfigurationError, match=words):
        app.test_client().get("/btn")


TOML = """
[MAB_BANDITS.color_btn]
algorithm = "epsilon_greedy"
epsilon = 0.2
arms = { green = "#00FF00", red = "#FF0000" }

[MAB_BANDITS.price]
algorithm = "thompson"
prior = [2.0, 3.0]
floor = 0.1
arms = ["low", "high"]

[MAB_BANDITS.engine]
algorithm = "uniform"
arms = { memory = { import = "flask_bandit.storage:MemoryBanditStorage" } }
"""


def test_bandits_declared_in_a_file(tmp_path: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    file = tmp_path / "bandits.toml"
    file.write_text(TOML)
    app = make_app("unused")
    app.config.from_file(str(file), load=tomllib.load, text=False)
    for name in ("color_btn", "price"):
        add_pages(app, name)
    client = app.test_client()
    assert client.get("/color_btn").text in ("#00FF00", "#FF0000")
    assert client.get("/price").text in ("low", "high")
    bandits = app.extensions["bandit"].bandits
    assert bandits["color_btn"].policy_version == "epsilon_greedy(epsilon=0.2)"
    assert bandits["price"].floor == 0.1
    assert bandits["engine"].value_of("memory") is MemoryBanditStorage


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "needs an algorithm"),
        ({"algorithm": "thompson"}, "needs arms"),
        ({"algorithm": "thompson", "arms": {}}, "needs arms"),
        ({"algorithm": "thomson", "arms": ["a"]}, "did you mean 'thompson'"),
        ({"algorithm": "epsilon_greedy", "epsilon": 2, "arms": ["a"]}, "epsilon"),
        ({"algorithm": "epsilon_greedy", "epsilom": 0.1, "arms": ["a"]}, "epsilom"),
        ({"algorithm": "uniform", "arms": ["a", "a"]}, "'a'"),
        ({"algorithm": "uniform", "arms": {"a": {"import": "no.where:x"}}}, "cannot import"),
        ("thompson", "write a table"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_an_error(table: Any, words: str) -> None:
    app = make_app("unused", TESTING=True, MAB_BANDITS={"btn": table})
    with pytest.raises(ConfigurationError, match=words) as caught:
        app.test_client().get("/unused")
    assert "MAB_BANDITS.btn" in str(caught.value)


def test_a_bandit_both_declared_and_added_is_an_error() -> None:
    app = make_app(TESTING=True, MAB_BANDITS={"btn": {"algorithm": "uniform", "arms": ["a"]}})
    with pytest.raises(ConfigurationError, match="by code and under MAB_BANDITS"):
        app.test_client().get("/btn")
