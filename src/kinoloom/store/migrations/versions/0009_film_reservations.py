"""What is set aside for films that are being made, and the calls that are paid out of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SUMS = "ix_remote_calls_reservation_sums"


def upgrade() -> None:
    """Create the table, and the column of calls. No table is made anew."""
    op.create_table(
        "film_reservations",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("film", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_film_reservations_job_id_jobs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_film_reservations"),
    )
    op.add_column("remote_calls", sa.Column("reservation", sa.String(36), nullable=True))
    op.create_index(_SUMS, "remote_calls", ["reservation", "state", "charged", "reserved"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index(_SUMS, "remote_calls")
    op.drop_column("remote_calls", "reservation")
    op.drop_table("film_reservations")
