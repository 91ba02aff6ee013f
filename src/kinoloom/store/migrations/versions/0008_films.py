"""Films with the takes of their shots, and which jobs are a part of one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, and the columns of jobs."""
    op.create_table(
        "films",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("storyboard", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=True),
        sa.Column("keyframes", sa.JSON(), nullable=False),
        sa.Column("clip_id", sa.String(36), nullable=True),
        sa.Column("job_id", sa.String(36), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_films"),
    )
    op.create_index("ix_films_owner_id", "films", ["owner", "id"])
    op.create_table(
        "film_assets",
        sa.Column("film_id", sa.String(36), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.ForeignKeyConstraint(
            ["film_id"], ["films.id"], name="fk_film_assets_film_id_films", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["digest"], ["assets.digest"], name="fk_film_assets_digest_assets"),
        sa.PrimaryKeyConstraint("film_id", "digest", name="pk_film_assets"),
    )
    op.create_index("ix_film_assets_digest", "film_assets", ["digest"])
    op.create_table(
        "film_takes",
        sa.Column("film_id", sa.String(36), nullable=False),
        sa.Column("shot", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("spec", sa.String(64), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.Column("upstream", sa.String(71), nullable=False),
        sa.Column("segments", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("seam", sa.Double(), nullable=True),
        sa.Column("cost", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.Column("chosen", sa.Boolean(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["film_id"], ["films.id"], name="fk_film_takes_film_id_films", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("film_id", "shot", "number", name="pk_film_takes"),
    )
    for name in ("parent", "film"):
        op.add_column("jobs", sa.Column(name, sa.String(36), nullable=True))
        op.create_index(f"ix_jobs_{name}", "jobs", [name])


def downgrade() -> None:
    """Drop them."""
    for name in ("film", "parent"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
        op.drop_column("jobs", name)
    op.drop_table("film_takes")
    op.drop_index("ix_film_assets_digest", "film_assets")
    op.drop_table("film_assets")
    op.drop_index("ix_films_owner_id", "films")
    op.drop_table("films")
