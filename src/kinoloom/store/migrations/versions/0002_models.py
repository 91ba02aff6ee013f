"""What was agreed to and downloaded: accepted licences and pinned revisions of models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "accepted_licences",
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("licence", sa.String(1000), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "licence", name="pk_accepted_licences"),
    )
    op.create_table(
        "pinned_revisions",
        sa.Column("repo", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("repo", name="pk_pinned_revisions"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("pinned_revisions", "accepted_licences"):
        op.drop_table(table)
