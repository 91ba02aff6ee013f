"""How does Alembic reach the database? Over the connection that `kinoloom.store` opened."""

from __future__ import annotations

from alembic import context

from kinoloom.store.tables import Base

# The connection is in a transaction already, which its owner commits.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
