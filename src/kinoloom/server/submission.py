"""How does a checked request of a client become one job, however often it is sent?

A client that heard no answer sends its request again. With an Idempotency-Key that is the same
request, which has its job already; the same key with another request is a mistake.
"""

from __future__ import annotations

from kinoloom.errors import Conflict
from kinoloom.jobs.service import JobService
from kinoloom.server.clip_request import ClipRequest
from kinoloom.store.job_record import JobRecord
from kinoloom.store.keys import ApiKey
from kinoloom.store.store import Store


def submit_once(
    asked: ClipRequest,
    service: JobService,
    store: Store,
    *,
    key: ApiKey | None,
    again: str | None,
    remixed_from: str | None = None,
) -> tuple[JobRecord, bool]:
    """The job of a request, and whether it is new; `again` is the Idempotency-Key.

    Raises Conflict for a key that another request has used, and as `JobService.submit`.
    """
    mark = None
    if again is not None:
        mark = asked.fingerprint("api", key.id if key is not None else "", again)
        if same := store.jobs.list(limit=1, request_key=mark):
            return same[0], False
    options = asked.options
    job = service.submit(
        asked.request,
        owner=key,
        priority=options.priority,
        idempotency_key=again,
        timeout=options.timeout,
        webhook=options.webhook,
        hold=options.hold,
        request_key=mark,
        remixed_from=remixed_from,
    )
    if job.request_key != mark:
        raise Conflict(
            f"The Idempotency-Key {again!r} belongs to another request.",
            cause=f"The job {job.id} was made with it, from another body.",
            hints=["Use a new key for a new request.", "Send the same body to get the same job."],
        )
    return job, True
