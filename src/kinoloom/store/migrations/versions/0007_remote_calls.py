"""Calls to services with what they cost; money exact; what was tried for a clip."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_MILLIONTHS = Decimal(10) ** 6

_CALLS = sa.table(
    "remote_calls",
    *(
        sa.column(name)
        for name in (
            *("id", "job_id", "take", "attempt", "backend", "model", "state", "endpoint"),
            *("reserved", "charged", "currency", "owner", "film"),
        )
    ),
    sa.column("data", sa.JSON()),
    sa.column("created_at", _TIME),
    sa.column("finished_at", _TIME),
)
_JOBS = sa.table(
    "jobs",
    *(sa.column(name) for name in ("id", "backend", "model", "owner", "cost")),
    sa.column("created_at", _TIME),
    sa.column("finished_at", _TIME),
)
_KEYS = sa.table(
    "api_keys",
    *(sa.column(name) for name in ("id", "budget", "budget_millionths", "spent")),
    sa.column("created_at", _TIME),
)


def upgrade() -> None:
    """Create the books and move into them what jobs and keys had of their own."""
    _create_calls()
    connection = op.get_bind()
    for job in connection.execute(sa.select(_JOBS).where(_JOBS.c.cost.is_not(None))).all():
        _book(job.id, job, backend=job.backend, model=job.model, owner=job.owner, cost=job.cost)
    spent = sa.select(_KEYS.c.id, _KEYS.c.spent, _KEYS.c.created_at)
    for key in connection.execute(spent.where(_KEYS.c.spent > 0)).all():
        # Of jobs that are forgotten: nobody knows any more which ones, and when they ran.
        _book(str(uuid.uuid4()), key, backend="", model="", owner=key.id, cost=key.spent)
    op.drop_index("ix_jobs_cost", "jobs")
    op.drop_column("jobs", "cost")
    op.drop_column("api_keys", "spent")

    op.add_column("api_keys", sa.Column("budget_millionths", sa.BigInteger(), nullable=True))
    budgets = sa.select(_KEYS.c.id, _KEYS.c.budget).where(_KEYS.c.budget.is_not(None))
    for key_id, budget in connection.execute(budgets).all():
        change = _KEYS.update().where(_KEYS.c.id == key_id)
        connection.execute(change.values(budget_millionths=_exact(budget)))
    op.drop_column("api_keys", "budget")
    op.execute("ALTER TABLE api_keys RENAME COLUMN budget_millionths TO budget")

    op.add_column("clips", sa.Column("attempts", sa.JSON(), nullable=True))
    op.add_column("clips", sa.Column("cost", sa.BigInteger(), nullable=True))
    op.add_column("clips", sa.Column("currency", sa.String(3), nullable=True))


def downgrade() -> None:
    """Drop them, and give jobs and keys back what they cost, as far as it was in USD."""
    for name in ("currency", "cost", "attempts"):
        op.drop_column("clips", name)
    op.execute("ALTER TABLE api_keys RENAME COLUMN budget TO budget_millionths")
    op.add_column("api_keys", sa.Column("budget", sa.Double(), nullable=True))
    op.add_column(
        "api_keys", sa.Column("spent", sa.Double(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("jobs", sa.Column("cost", sa.Double(), nullable=True))
    dollars = sa.func.sum(_CALLS.c.charged) / sa.literal(1e6, sa.Double())
    counted = sa.select(dollars).where(_CALLS.c.currency == "USD")
    of_job = counted.where(_CALLS.c.job_id == _JOBS.c.id).scalar_subquery()
    there = sa.select(_JOBS.c.id).where(_JOBS.c.id == _CALLS.c.job_id).exists()
    of_key = counted.where(_CALLS.c.owner == _KEYS.c.id, ~there).scalar_subquery()
    budget = _KEYS.c.budget_millionths / sa.literal(1e6, sa.Double())
    op.execute(_JOBS.update().values(cost=of_job))
    op.execute(_KEYS.update().values(budget=budget, spent=sa.func.coalesce(of_key, 0.0)))
    op.drop_column("api_keys", "budget_millionths")
    costly = sa.text("cost IS NOT NULL")
    op.create_index(
        "ix_jobs_cost", "jobs", ["backend", "cost"], sqlite_where=costly, postgresql_where=costly
    )
    op.drop_table("remote_calls")


def _create_calls() -> None:
    op.create_table(
        "remote_calls",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("take", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("backend", sa.String(40), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=True),
        sa.Column("charged", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("film", sa.String(36), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("sent_at", _TIME, nullable=True),
        sa.Column("accepted_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("nudged_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_remote_calls"),
        sa.UniqueConstraint(
            "job_id", "take", "attempt", name="uq_remote_calls_job_id_take_attempt"
        ),
    )
    for name in ("state", "backend"):
        op.create_index(f"ix_remote_calls_{name}_id", "remote_calls", [name, "id"])
    for name in ("created_at", "owner", "film"):
        columns = [name, "currency", "state", "charged", "reserved"]
        op.create_index(f"ix_remote_calls_{name}_sums", "remote_calls", columns)
    op.create_index(
        "ix_remote_calls_backend_model_state_finished_at",
        "remote_calls",
        ["backend", "model", "state", "finished_at"],
    )


def _book(job_id: str, row: Any, *, backend: str, model: str, owner: str, cost: float) -> None:
    """Write a call that is over; its moments are those of the job or key it is of."""
    charged = _exact(cost)
    op.execute(
        _CALLS.insert().values(
            id=str(uuid.uuid4()),
            job_id=job_id,
            take=0,
            attempt=1,
            backend=backend,
            model=model,
            state="succeeded",
            endpoint="",
            data={},
            reserved=charged,
            charged=charged,
            currency="USD",
            owner=owner,
            film="",
            created_at=row.created_at,
            finished_at=getattr(row, "finished_at", None) or row.created_at,
        )
    )


def _exact(amount: float) -> int:
    """Millionths of what a binary fraction was meant to be."""
    return int((Decimal(repr(amount)) * _MILLIONTHS).to_integral_value())
