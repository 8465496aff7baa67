"""Which settings of a Redis server endanger what is stored, for ``flask bandit check``."""

from __future__ import annotations

import logging
import re

from ...errors import StorageError
from .client import RedisClient, Request
from .records import pairs

logger = logging.getLogger(__name__)

OLDEST = (5, 0)
"""The first Redis that has streams, and replicates what a script did instead of the script."""


def problems(client: RedisClient) -> list[str]:
    """Return what is wrong with the server, each with the fix.

    A setting that the user may not read is unknown, which is logged and is no problem.

    :raises StorageError: the server cannot be asked at all
    """
    client.call(Request("", ("PING",)), None)
    found = []
    version = re.search(r"redis_version:(\d+)\.(\d+)", _ask(client, "INFO", "server"))
    if version and tuple(map(int, version.groups())) < OLDEST:
        found.append(
            f"Redis {version.group(1)}.{version.group(2)} is too old; use 5.0 or a newer one."
        )
    if _setting(client, "appendonly") == "no":
        found.append(
            "Redis runs with 'appendonly no': a crash loses everything since its last snapshot."
            " Set 'appendonly yes', and 'appendfsync always' to lose nothing in a power failure."
        )
    policy = _setting(client, "maxmemory-policy")
    # The volatile ones remove only keys that expire, and none of these does.
    if policy and policy.startswith("allkeys"):
        found.append(
            f"Redis runs with 'maxmemory-policy {policy}' and removes counts when its memory is"
            " full; set 'maxmemory-policy noeviction'."
        )
    return found


def _setting(client: RedisClient, name: str) -> str | None:
    try:
        answer = client.call(Request("", ("CONFIG", "GET", name)), None)
    except StorageError as error:
        logger.info("The setting %r of Redis is unknown: %s", name, error)
        return None
    return dict(pairs(answer)).get(name.encode(), b"").decode() or None


def _ask(client: RedisClient, *arguments: str) -> str:
    try:
        return str(client.call(Request("", arguments), None), "utf-8", "replace")
    except StorageError as error:
        logger.info("%s of Redis is unknown: %s", " ".join(arguments), error)
        return ""
