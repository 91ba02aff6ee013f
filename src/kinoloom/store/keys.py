"""Who may use the server, for what, and how much may they spend?

A key's secret is 256 random bits and exists outside of the client only once, when it is made. The
store has its SHA-256: so many random bits cannot be guessed, so a slow hash would protect nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import exc, or_, select, update

from kinoloom.errors import Conflict
from kinoloom.store.database import Database
from kinoloom.store.ids import new_id
from kinoloom.store.money import plain_or_none
from kinoloom.store.tables import ApiKeyRow

SCOPES = ("read", "write", "admin")
KEY_MARK = "kl_"
# What of the secret is shown to tell keys from each other.
_PREFIX_LENGTH = 11
# When a key was last used is worth no write at each request.
_USE_INTERVAL = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key of the server, without its secret; `prefix` is what the secret begins with.

    `scopes` are of "read", "write" and "admin". `budget` is what its jobs may cost in all, in the
    currency of the settings' budgets; None is no limit. `store.remote_calls` knows what they did
    cost.
    """

    id: str
    name: str
    scopes: frozenset[str]
    budget: Decimal | None
    prefix: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """The key as JSON-ready data."""
        data = asdict(self) | {
            "scopes": [scope for scope in SCOPES if scope in self.scopes],
            "budget": plain_or_none(self.budget),
        }
        for name in ("created_at", "last_used_at", "revoked_at"):
            if data[name] is not None:
                data[name] = data[name].astimezone(UTC).isoformat()
        return data


class Keys:
    """The keys of a store's server."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, scopes: Collection[str], budget: Decimal | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which nobody can read again.

        Raises Conflict when a key of that name is in use, ValueError for a scope that is none.
        """
        if unknown := set(scopes) - set(SCOPES):
            raise ValueError(f"no scopes: {', '.join(sorted(unknown))}")
        secret = KEY_MARK + secrets.token_urlsafe(32)
        row = ApiKeyRow(
            id=new_id(),
            name=name,
            scopes=[scope for scope in SCOPES if scope in scopes],
            budget=budget,
            prefix=secret[:_PREFIX_LENGTH],
            hash=_hash(secret),
            created_at=datetime.now(UTC),
        )
        try:
            with self._database.writing() as session:
                session.add(row)
        except exc.IntegrityError as error:
            raise Conflict(
                f"There is a key {name!r} already.",
                hints=["Choose another name, or revoke that key first."],
            ) from error
        return _key(row), secret

    def verify(self, secret: str) -> ApiKey | None:
        """The key whose secret this is; None for no key's, and for a revoked one's."""
        wanted = _hash(secret)
        with self._database.reading() as session:
            row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.hash == wanted))
        if row is None or not hmac.compare_digest(row.hash, wanted) or row.revoked_at is not None:
            return None
        now = datetime.now(UTC)
        if row.last_used_at is None or now - row.last_used_at > _USE_INTERVAL:
            with self._database.writing() as session:
                session.execute(
                    update(ApiKeyRow).where(ApiKeyRow.id == row.id).values(last_used_at=now)
                )
        return _key(row)

    def list(self) -> list[ApiKey]:
        """Every key, the revoked ones too, newest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.id.desc()))
            return [_key(row) for row in rows]

    def revoke(self, which: str) -> ApiKey | None:
        """End the key in use with that id, name or prefix; None when there is none.

        Raises Conflict when several keys begin so.
        """
        named = or_(ApiKeyRow.id == which, ApiKeyRow.name == which, ApiKeyRow.prefix == which)
        with self._database.writing() as session:
            query = select(ApiKeyRow).where(named, ApiKeyRow.revoked_at.is_(None))
            rows = session.scalars(query.with_for_update()).all()
            if len(rows) > 1:
                raise Conflict(f"Several keys are called {which!r}.", hints=["Give the key's id."])
            if not rows:
                return None
            rows[0].revoked_at = datetime.now(UTC)
            return _key(rows[0])

    def any(self) -> bool:
        """Whether there is a key in use."""
        with self._database.reading() as session:
            query = select(ApiKeyRow.id).where(ApiKeyRow.revoked_at.is_(None)).limit(1)
            return session.scalar(query) is not None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()


def _key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(row.scopes),
        budget=row.budget,
        prefix=row.prefix,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
