"""Jobs with their events, previews and artefacts; workers, keys, and clips listed by column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_CLIPS_BY = ("model", "backend", "task", "format", "owner")
_JOBS_BY = ("state", "model", "backend", "task", "owner")


def upgrade() -> None:
    """Create the tables, and give the clips what they are listed and added up by."""
    _clips()
    _jobs()
    _parts_of_jobs()
    _workers()
    _keys()


def downgrade() -> None:
    """Drop them."""
    for table in (
        "api_keys",
        "workers",
        "job_artefacts",
        "job_previews",
        "job_events",
        "jobs",
    ):
        op.drop_table(table)
    op.drop_index("ix_clips_totals", "clips")
    for name in _CLIPS_BY:
        op.drop_index(f"ix_clips_{name}_id", "clips")
    with op.batch_alter_table("clips") as batch:
        for name in ("seconds", "steps", "digest", "job_id", "owner"):
            batch.drop_column(name)


def _clips() -> None:
    with op.batch_alter_table("clips") as batch:
        batch.add_column(sa.Column("owner", sa.String(36), nullable=False, server_default=""))
        batch.add_column(sa.Column("job_id", sa.String(36), nullable=False, server_default=""))
        batch.add_column(sa.Column("digest", sa.String(71), nullable=True))
        batch.add_column(sa.Column("steps", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("seconds", sa.Double(), nullable=False, server_default="0"))
    clips = sa.table(
        "clips",
        *(sa.column(name) for name in ("id", "steps", "seconds")),
        *(sa.column(name, sa.JSON()) for name in ("plan", "timings")),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(clips.c.id, clips.c.plan, clips.c.timings)).all():
        connection.execute(
            clips.update()
            .where(clips.c.id == row.id)
            .values(steps=row.plan.get("steps") or 0, seconds=row.timings.get("total") or 0.0)
        )
    with op.batch_alter_table("clips") as batch:
        for name in ("owner", "job_id", "steps", "seconds"):
            batch.alter_column(name, server_default=None)
    for name in _CLIPS_BY:
        op.create_index(f"ix_clips_{name}_id", "clips", [name, "id"])
    op.create_index(
        "ix_clips_totals", "clips", ["task", "backend", "frames", "fps", "steps", "seconds"]
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("queue", sa.String(80), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(20), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=True),
        sa.Column("plan_key", sa.String(100), nullable=True),
        sa.Column("request_key", sa.String(100), nullable=True),
        sa.Column("remixed_from", sa.String(36), nullable=True),
        sa.Column("task", sa.String(20), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("backend", sa.String(40), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("handed", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(80), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("deadline_at", _TIME, nullable=True),
        sa.Column("clip_id", sa.String(36), nullable=True),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("cost", sa.Double(), nullable=True),
        sa.Column("idempotency_key", sa.String(255), nullable=True),
        sa.Column("webhook", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    for name in _JOBS_BY:
        op.create_index(f"ix_jobs_{name}_id", "jobs", [name, "id"])
    for name in ("request_key", "clip_id", "finished_at"):
        op.create_index(f"ix_jobs_{name}", "jobs", [name])
    for name in ("queue", "worker"):
        op.create_index(f"ix_jobs_{name}_state", "jobs", [name, "state"])
    op.create_index(
        "ix_jobs_owner_idempotency_key", "jobs", ["owner", "idempotency_key"], unique=True
    )
    costly = sa.text("cost IS NOT NULL")
    op.create_index(
        "ix_jobs_cost", "jobs", ["backend", "cost"], sqlite_where=costly, postgresql_where=costly
    )


def _parts_of_jobs() -> None:
    op.create_table(
        "job_events",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_job_events"),
        _of_job("job_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_events_job_id_number", "job_events", ["job_id", "number"])
    op.create_table(
        "job_previews",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_previews"),
        _of_job("job_previews"),
    )
    op.create_table(
        "job_artefacts",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(71), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_job_artefacts"),
        _of_job("job_artefacts"),
        sa.ForeignKeyConstraint(
            ["digest"], ["assets.digest"], name="fk_job_artefacts_digest_assets"
        ),
    )
    op.create_index("ix_job_artefacts_digest", "job_artefacts", ["digest"])


def _of_job(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["job_id"], ["jobs.id"], name=f"fk_{table}_job_id_jobs", ondelete="CASCADE"
    )


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("machine", sa.JSON(), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("beat_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("budget", sa.Double(), nullable=True),
        sa.Column("prefix", sa.String(20), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("spent", sa.Double(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME, nullable=True),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )
    live = sa.text("revoked_at IS NULL")
    op.create_index(
        "ix_api_keys_name",
        "api_keys",
        ["name"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
