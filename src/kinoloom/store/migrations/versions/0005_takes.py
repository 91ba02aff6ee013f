"""The candidates that a clip was chosen from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; clips made before were chosen from nothing."""
    with op.batch_alter_table("clips") as batch:
        batch.add_column(sa.Column("takes", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("clips") as batch:
        batch.alter_column("takes", server_default=None)


def downgrade() -> None:
    """Drop it."""
    with op.batch_alter_table("clips") as batch:
        batch.drop_column("takes")
