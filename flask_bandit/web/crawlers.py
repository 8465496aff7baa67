"""Which user agents are robots: by the maintained list of the package crawler-user-agents.

The only module that imports that package; loaded when the first bandit is asked for.
"""

from __future__ import annotations

from functools import lru_cache

from crawleruseragents import is_crawler

LONGEST_USER_AGENT = 512
"""Characters that are looked at; a robot names itself long before."""
REMEMBERED_USER_AGENTS = 2048
"""A search takes a fifth of a millisecond, so it is done once for each; these take 1 MB at most."""


def is_robot(user_agent: str) -> bool:
    """Return whether the list knows this user agent as a robot's."""
    return _is_listed(user_agent[:LONGEST_USER_AGENT])


@lru_cache(maxsize=REMEMBERED_USER_AGENTS)
def _is_listed(user_agent: str) -> bool:
    return bool(is_crawler(user_agent))
