"""The errors of the library. Every message says what was wrong and what to change."""


class BanditError(Exception):
    """Root of every error that this library raises on its own account."""


class ConfigurationError(BanditError, ValueError):
    """A setting, a name or a combination of them that cannot work; the message says the fix."""


class UnknownBanditError(BanditError, LookupError):
    """A bandit's name that is registered nowhere."""


class UnknownArmError(BanditError, LookupError):
    """An arm's id that the bandit does not have."""


class LateChoiceError(BanditError, RuntimeError):
    """An arm chosen after the request's decisions were committed, in a streamed response."""


class LifecycleError(BanditError, ValueError):
    """Something that cannot be done to a bandit in its present state; the message says what can."""


class TokenError(BanditError, ValueError):
    """A reward token that this app did not make, or whose time is over."""


class StorageError(BanditError):
    """A storage could not do what it was asked; nothing of the commit was applied."""


class StorageTimeoutError(StorageError):
    """The deadline passed before the storage answered."""


class StorageCorruptError(StorageError):
    """Stored data is not what was written; the message names the file. Nothing was reset."""
