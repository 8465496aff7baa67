"""The storage on a Redis server or cluster; needs the extra ``redis``."""

from .storage import RedisBanditStorage

__all__ = ["RedisBanditStorage"]
