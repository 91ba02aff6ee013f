"""How a measured render was placed and accelerated: only like is compared with like."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS: tuple[tuple[str, Any, Any], ...] = (
    ("placement", sa.String(20), "resident"),
    ("tiling", sa.Boolean(), sa.false()),
    ("acceleration", sa.String(20), "lossless"),
)


def upgrade() -> None:
    """Add the columns; what was measured before is said to be what every render was then."""
    with op.batch_alter_table("measurements") as batch:
        for name, kind, before in _COLUMNS:
            batch.add_column(sa.Column(name, kind, nullable=False, server_default=before))
    with op.batch_alter_table("measurements") as batch:
        for name, _, _ in _COLUMNS:
            batch.alter_column(name, server_default=None)


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("measurements") as batch:
        for name, _, _ in _COLUMNS:
            batch.drop_column(name)
