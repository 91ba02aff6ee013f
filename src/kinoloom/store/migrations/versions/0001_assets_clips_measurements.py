"""The first tables: assets, clips and measurements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "assets",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_assets"),
    )
    op.create_table(
        "clips",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("plan_key", sa.String(100), nullable=False),
        sa.Column("task", sa.String(20), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("backend", sa.String(40), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("fps", sa.Double(), nullable=False),
        sa.Column("format", sa.String(20), nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("timings", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clips"),
    )
    op.create_index("ix_clips_plan_key", "clips", ["plan_key"])
    op.create_table(
        "clip_assets",
        sa.Column("clip_id", sa.String(36), nullable=False),
        sa.Column("role", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.ForeignKeyConstraint(
            ["clip_id"], ["clips.id"], name="fk_clip_assets_clip_id_clips", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["digest"], ["assets.digest"], name="fk_clip_assets_digest_assets"),
        sa.PrimaryKeyConstraint("clip_id", "role", name="pk_clip_assets"),
    )
    op.create_index("ix_clip_assets_digest", "clip_assets", ["digest"])
    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("device", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(200), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("guided", sa.Boolean(), nullable=False),
        sa.Column("seconds_per_step", sa.Double(), nullable=False),
        sa.Column("load_seconds", sa.Double(), nullable=False),
        sa.Column("overhead_seconds", sa.Double(), nullable=False),
        sa.Column("peak_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_measurements"),
    )
    op.create_index(
        "ix_measurements_device_model_revision", "measurements", ["device", "model", "revision"]
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("measurements", "clip_assets", "clips", "assets"):
        op.drop_table(table)
