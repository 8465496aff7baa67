"""The storage in a ZODB, on a file or by ZEO; needs the extra ``zodb``."""

from .storage import ZODBBanditStorage

__all__ = ["ZODBBanditStorage"]
