"""What has Kinoloom made, from which files, and how long did it take?

``from kinoloom.store import Store`` is the way in; this package is the only one that knows SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinoloom.store.store import Store

__all__ = ["DATABASE_NAME", "Store"]

DATABASE_NAME = "kinoloom.sqlite3"


def __getattr__(name: str) -> Any:
    # Importing the package must not cost SQLAlchemy's 0.2 s; asking for the store does.
    if name == "Store":
        from kinoloom.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
