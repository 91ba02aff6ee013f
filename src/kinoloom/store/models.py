"""Which licences did the user accept, and at which revision was each repository downloaded?"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, select

from kinoloom.store.database import Database
from kinoloom.store.tables import AcceptedLicenceRow, PinnedRevisionRow


class Models:
    """What a store knows of the models that were downloaded."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accept(self, model: str, licence: str) -> datetime:
        """Record that the user accepts a model's licence now; the first time counts."""
        added = self._database.insert(AcceptedLicenceRow).values(
            model=model, licence=licence, accepted_at=datetime.now(UTC)
        )
        with self._database.writing() as session:
            session.execute(added.on_conflict_do_nothing())
            return session.get_one(AcceptedLicenceRow, (model, licence)).accepted_at

    def accepted(self, model: str, licence: str) -> datetime | None:
        """When the user accepted this licence for this model, if ever."""
        with self._database.reading() as session:
            row = session.get(AcceptedLicenceRow, (model, licence))
            return None if row is None else row.accepted_at

    def pin(self, repo: str, revision: str) -> None:
        """Use this commit of a repository from now on."""
        values = {"revision": revision, "pinned_at": datetime.now(UTC)}
        pinned = self._database.insert(PinnedRevisionRow).values(repo=repo, **values)
        with self._database.writing() as session:
            session.execute(
                pinned.on_conflict_do_update(index_elements=[PinnedRevisionRow.repo], set_=values)
            )

    def unpin(self, repo: str) -> None:
        """Forget which commit of a repository was used."""
        with self._database.writing() as session:
            session.execute(delete(PinnedRevisionRow).where(PinnedRevisionRow.repo == repo))

    def pins(self) -> dict[str, str]:
        """The pinned commit of each repository that has one."""
        with self._database.reading() as session:
            return {row.repo: row.revision for row in session.scalars(select(PinnedRevisionRow))}
