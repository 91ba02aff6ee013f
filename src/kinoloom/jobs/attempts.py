"""What was tried for a job before, and which plan came of it?

An attempt that failed and what was decided after it are one row, so that whoever goes on with the
job decides nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kinoloom.errors import KinoloomError
from kinoloom.jobs.job_run import JobRun
from kinoloom.planner.plan import Plan
from kinoloom.store.money import plain_or_none
from kinoloom.store.remote_calls import RemoteCall

_NAME = "attempts"


class Attempts:
    """The attempts of one job that failed and were followed by another."""

    def __init__(self, run: JobRun) -> None:
        self._run = run
        known = run.artefact(_NAME)
        self._entries: list[dict[str, Any]] = list(known.data["attempts"]) if known else []
        self._plan = Plan.model_validate(known.data["plan"]) if known else None

    @property
    def plan(self) -> Plan | None:
        """The plan that was decided on last; None while the first one holds."""
        return self._plan

    @property
    def calls(self) -> frozenset[str]:
        """The ids of the calls whose failure was dealt with."""
        return frozenset(entry["call"] for entry in self._entries if entry["call"] is not None)

    @property
    def rewordings(self) -> int:
        """How often the words were changed."""
        return sum("reworded" in entry for entry in self._entries)

    def follow(self, plan: Plan, error: KinoloomError, then: Plan, **more: str) -> None:
        """Keep that `plan` failed with `error`, and that `then` is the plan now.

        `more` is kept with the attempt. Raises Superseded.
        """
        call = self._failed_call()
        known = {} if call is None else _money(call)
        entry = _entry(plan.backend, plan.model, error.as_dict(), datetime.now(UTC))
        entries = [*self._entries, entry | known | more]
        data = {"attempts": entries, "plan": then.model_dump(mode="json")}
        self._run.keep(_NAME, None, data)
        self._run.keep_plan(then)
        self._entries, self._plan = entries, then

    def all(self) -> Sequence[Mapping[str, Any]]:
        """Every attempt of the job, in order: those kept here, and the other calls to services.

        Each has backend, model, error (kind and message, None for a success), the id of the call,
        what was charged and in which currency, and when it ended.
        """
        calls = self._run.store.remote_calls.of_job(self._run.job.id)
        known = self.calls
        others = [
            _entry(call.backend, call.model, call.error, call.finished_at or call.created_at)
            | _money(call)
            for call in calls
            if call.id not in known and call.state in ("succeeded", "failed", "cancelled")
        ]
        return sorted([*self._entries, *others], key=lambda entry: entry["at"])

    def remarks(self) -> list[str]:
        """What the user should know of the attempts that were followed by another."""
        found = []
        for entry in self._entries:
            why = f"{entry['model']} on {entry['backend']} failed: {entry['error']['message']}"
            words = entry.get("reworded")
            found.append(f"{why} It was tried with other words: {words}" if words else why)
        return found

    def _failed_call(self) -> RemoteCall | None:
        """The call that the attempt which just failed made, if it made one."""
        for call in reversed(self._run.store.remote_calls.of_job(self._run.job.id)):
            if call.state in ("failed", "cancelled") and call.id not in self.calls:
                return call
        return None


def _entry(
    backend: str, model: str, error: Mapping[str, Any] | None, at: datetime
) -> dict[str, Any]:
    told = None if error is None else {name: error.get(name) for name in ("kind", "message")}
    return {
        "backend": backend,
        "model": model,
        "error": told,
        "call": None,
        "charged": None,
        "currency": None,
        "at": at.astimezone(UTC).isoformat(),
    }


def _money(call: RemoteCall) -> dict[str, Any]:
    return {
        "call": call.id,
        "charged": plain_or_none(call.charged),
        "currency": call.currency,
    }
