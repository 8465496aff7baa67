"""Names and URIs to classes; plug-ins that clash."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from flask_bandit import plugins
from flask_bandit.algorithms import POLICIES, ThompsonPolicy
from flask_bandit.errors import ConfigurationError
from flask_bandit.storage import MemoryBanditStorage


class Elsewhere(MemoryBanditStorage):
    """A third party's storage."""

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> Elsewhere:
        assert uri == "mongo+driver://host"
        return cls()


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def fake(group: str) -> list[EntryPoint]:
        return [point for point in points if point.group == group]

    monkeypatch.setattr(plugins, "entry_points", fake)


def point(name: str, value: str, group: str = plugins.STORAGE_GROUP) -> EntryPoint:
    return EntryPoint(name, value, group)


def test_a_storage_from_its_uri_and_its_names() -> None:
    for made in (
        plugins.storage_from_uri("memory://"),
        plugins.storage_from_name("MemoryBanditStorage", ()),
        plugins.storage_from_name("flask_bandit.storage:MemoryBanditStorage", {}),
        plugins.storage_from_name("flask_bandit.storage.MemoryBanditStorage", ()),
    ):
        assert isinstance(made, MemoryBanditStorage)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_by_its_name(name: str) -> None:
    assert type(plugins.policy_from_name(name, {})) is POLICIES[name]


def test_a_policy_from_a_dotted_path_with_parameters() -> None:
    made = plugins.policy_from_name("flask_bandit.algorithms:ThompsonPolicy", {"prior": [2, 3]})
    assert isinstance(made, ThompsonPolicy)
    assert made.prior == (2.0, 3.0)


def test_plug_ins_are_found_by_scheme_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        point("mongo", f"{__name__}:Elsewhere"),
        point("mine", "flask_bandit.algorithms:UniformPolicy", plugins.POLICY_GROUP),
    )
    assert isinstance(plugins.storage_from_uri("mongo+driver://host"), Elsewhere)
    assert isinstance(plugins.storage_from_name("mongo", ()), Elsewhere)
    assert isinstance(plugins.policy_from_name("mine", {}), POLICIES["uniform"])


def test_a_built_in_name_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, point("json", "evil:Storage"), point("mongo", "good:Storage"))
    with pytest.raises(ConfigurationError, match=r"evil:Storage.*built-in name 'json'"):
        plugins.storage_from_uri("mongo://")


def test_two_plug_ins_of_one_name_are_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, point("mongo", "one:Storage"), point("mongo", "two:Storage"))
    with pytest.raises(ConfigurationError, match=r"one:Storage.*two:Storage"):
        plugins.storage_from_uri("mongo://")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plugins.storage_from_uri("memry://"), "did you mean 'memory'"),
        (lambda: plugins.storage_from_name("JSONStorage", ()), "did you mean 'JSONBanditStorage'"),
        (lambda: plugins.policy_from_name("ucb", {}), "did you mean 'ucb1'"),
        (lambda: plugins.policy_from_name("softmax", {"tua": 1}), "'tua'"),
        (lambda: plugins.policy_from_name("builtins:dict", {}), "is no policy"),
        (lambda: plugins.import_object("nothing"), "package.module:name"),
        (lambda: plugins.import_object("os:nothing"), "package.module:name"),
    ],
)
def test_what_cannot_be_found_says_the_fix(call: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call()


@pytest.mark.parametrize(
    ("uri", "option"),
    [
        ("json:///b.json", "fsync"),
        ("sqlite:///b.db", "auto_migrate"),
        ("sqlite+pysqlite:///b.db", "auto_migrate"),
        ("postgresql://localhost/b", "auto_migrate"),
        ("zodb:///b.fs", "auto_migrate"),
    ],
)
def test_a_text_is_no_boolean_option(uri: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} is 'no'; write True or False"):
        plugins.storage_from_uri(uri, {option: "no"})


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("epsilo", "did you mean 'epsilon'"), ("hold_out", "did you mean 'holdout'")],
)
def test_a_misspelt_parameter_or_option_is_told_with_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"it has no '{wrong}'; {hint}"):
        plugins.policy_from_name("epsilon_greedy", {wrong: 0.1})
