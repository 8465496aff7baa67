"""What is remembered per app, and found again by name from any code that runs inside it."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

from flask import Flask, current_app

from ..digests import Digester
from ..engine import Engine, logger
from ..errors import ConfigurationError
from ..plugins import storage_from_name, storage_from_uri
from ..storage.base import BanditStorage
from ..windows import WindowCloser
from . import signals
from .assignments import AssignmentCodec, codec_for
from .config import BanditConfig
from .hooks import Hooks
from .identity import Subject, pseudonyms_of
from .registry import BanditRegistry
from .tally import Tally
from .visitors import Rules

EXTENSION_KEY = "bandit"


class AppState:
    """One app's bandits, settings and engine; lives in ``app.extensions["bandit"]``.

    Settings, keys and storage are resolved at first use, since factories and tests set them
    after ``init_app``.
    """

    def __init__(self, app: Flask, hooks: Hooks) -> None:
        self._app = weakref.ref(app)
        self._lock = threading.RLock()
        self._config: BanditConfig | None = None
        self._engine: Engine | None = None
        self._codec: tuple[Any, AssignmentCodec] | None = None
        self._closer: WindowCloser | None = None
        self._digester: Digester | None = None
        self._rules: Rules | None = None
        self.hooks = hooks
        self.registry = BanditRegistry()
        self.tally = Tally()
        self.environ_key = f"flask_bandit.{id(self):x}"
        """Where a request of this app keeps its state; two apps may share one environ."""
        self.wiring_problems: tuple[str, ...] | None = None
        """What is wrong between views and bandits; ``None`` until the first request looked."""
        self.warned_endpoints: set[str | None] = set()
        """Those that the log has said about that they reward on a ``GET``."""

    @property
    def app(self) -> Flask:
        """The app; it owns this state, so it is always there."""
        app = self._app()
        if app is None:
            raise ConfigurationError("the Flask app of these bandits is gone; keep a reference")
        return app

    @property
    def config(self) -> BanditConfig:
        """The settings, read at first use."""
        if self._config is None:
            with self._lock:
                self._config = self._config or BanditConfig.from_mapping(self.app.config)
        return self._config

    @property
    def bandits(self) -> BanditRegistry:
        """The bandits; from the first time they are read they are fixed."""
        if not self.registry.is_frozen:
            with self._lock:
                self.registry.freeze(self.config.bandits)
        return self.registry

    @property
    def engine(self) -> Engine:
        """The engine on the configured storage, made at first use."""
        if self._engine is None:
            with self._lock:
                if self._engine is None:
                    self._engine = self._make_engine()
        return self._engine

    @property
    def storage(self) -> BanditStorage:
        """The configured storage."""
        return self.engine.storage

    @property
    def backup_folder(self) -> Path:
        """Where a copy of everything is kept before a model is deployed."""
        return Path(self.app.instance_path) / "bandit-backups"

    @property
    def codec(self) -> AssignmentCodec:
        """The cookie's codec for the keys that the app has now.

        :raises ConfigurationError: there is no SECRET_KEY
        """
        config = self.app.config
        keys = (config.get("SECRET_KEY"), tuple(config.get("SECRET_KEY_FALLBACKS") or ()))
        if self._codec is None or self._codec[0] != keys:
            self._codec = (keys, codec_for(*keys))
        return self._codec[1]

    @property
    def closer(self) -> WindowCloser:
        """What closes the bandits' reward windows."""
        if self._closer is None:
            with self._lock:
                self._closer = self._closer or WindowCloser(self.engine)
        return self._closer

    @property
    def digester(self) -> Digester:
        """What keeps the digests of the bandits' logs."""
        if self._digester is None:
            with self._lock:
                self._digester = self._digester or Digester(self.engine)
        return self._digester

    @property
    def rules(self) -> Rules:
        """What the settings say about visitors, made at first use.

        :raises ConfigurationError: a package is missing, or the limit cannot be meant
        """
        if self._rules is None:
            with self._lock:
                self._rules = self._rules or Rules.from_config(self.config)
        return self._rules

    def pseudonyms(self, subject: str) -> tuple[str, ...]:
        """Return what a user is stored as: under the present key, then under older ones.

        :raises ConfigurationError: there is no SECRET_KEY
        """
        _ = self.codec
        config = self.app.config
        older = tuple(config.get("SECRET_KEY_FALLBACKS") or ())
        own = self.config.subject_key
        return pseudonyms_of(subject, (own or config["SECRET_KEY"], *(() if own else older)))

    def subject(self, subject: str) -> Subject:
        """Return a known user."""
        return Subject(self.engine, self.pseudonyms(subject))

    def arm_value(self, bandit: str, arm: str) -> Any:
        """Return the value that code gave an arm."""
        return self.registry[bandit].value_of(arm)

    def _make_engine(self) -> Engine:
        app, config = self.app, self.config
        return Engine(
            self._make_storage(),
            self.bandits,
            timeout=config.storage_timeout,
            stats_ttl=config.stats_ttl,
            control_ttl=config.control_ttl,
            learn_ttl=config.learn_ttl,
            on_failed=lambda error: signals.send(signals.storage_failed, app, error=error),
            on_recovered=lambda: signals.send(signals.storage_recovered, app),
            on_changed=lambda name, control, action: signals.send(
                signals.bandit_changed, app, bandit=name, control=control, action=action
            ),
        )

    def _make_storage(self) -> BanditStorage:
        config = self.config
        if config.storage_uri is not None:
            storage = storage_from_uri(config.storage_uri, config.storage_opts)
        elif isinstance(config.storage_engine, BanditStorage):
            storage = config.storage_engine
        elif config.storage_engine is None or isinstance(config.storage_engine, str):
            name = config.storage_engine or "MemoryBanditStorage"
            storage = storage_from_name(name, config.storage_opts)
        else:
            raise ConfigurationError(
                f"MAB_STORAGE_ENGINE is {config.storage_engine!r}; write a class name, a dotted "
                "path, or give a storage object"
            )
        if type(storage).__name__ == "MemoryBanditStorage" and not (
            self.app.debug or self.app.testing
        ):
            logger.warning(
                "The bandits' counts are kept in this process's memory: other workers do not see "
                "them and a restart loses them. Set MAB_STORAGE_URI, for example to "
                "'sqlite:///bandits.db'."
            )
        if config.sql_auto_migrate is not None:
            storage.auto_migrate = config.sql_auto_migrate
        return storage


def app_state(app: Flask | None = None) -> AppState:
    """Return the state of ``app``, by default of the app whose context is active.

    :raises ConfigurationError: the app was not given to ``init_app``
    """
    found: AppState | None = (app or current_app).extensions.get(EXTENSION_KEY)
    if found is None:
        raise ConfigurationError(
            "this app has no bandits yet: call BanditMiddleware().init_app(app) first"
        )
    return found
