"""How is somebody told that a job has ended?

By one POST to the address that came with the job, in the form of the Standard Webhooks
specification (https://www.standardwebhooks.com): ``webhook-id`` is the same at every attempt, so
whoever receives it twice can tell; ``webhook-signature`` proves who sent it and when. The address
may be anybody's choice, so it goes through `kinoloom.net`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from importlib import metadata
from typing import Any

from kinoloom.config import Settings
from kinoloom.errors import Conflict, MissingPackage, NetworkFailed
from kinoloom.store.job_record import JobRecord

TIMEOUT_SECONDS = 10.0
"""For connecting, sending, and waiting for the answer, each."""

_SECRET_PREFIX = "whsec_"
# Another attempt may be welcome: timeout, too early, too many.
_RETRIED = frozenset({408, 425, 429})
# A job that died with its workers has failed, for whoever waits for it.
_TYPES = {
    "succeeded": "job.succeeded",
    "failed": "job.failed",
    "dead": "job.failed",
    "cancelled": "job.cancelled",
}
_TOLD = (
    "id",
    "kind",
    "state",
    "task",
    "model",
    "backend",
    "queue",
    "prompt",
    "created_at",
    "started_at",
    "finished_at",
    "clip_id",
    "reused",
    "error",
    "cost",
    "currency",
)


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: HMAC-SHA256 over id, timestamp (seconds since 1970) and
    body.

    A secret ``whsec_...`` is base64 after its prefix, as the specification has it; any other text
    counts as it is.
    """
    message = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(_key(secret), message, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def deliver(url: str, job: JobRecord, settings: Settings) -> None:
    """Tell `url` once that `job` has ended, signed with the settings' `webhook_secret` if there is
    one.

    A job that nobody's key asked for came from this machine, and may call it as well. Raises
    NetworkFailed when another attempt may succeed (no connection, no answer, a 5xx, 408, 425 or
    429), Conflict when none will, MissingPackage without the packages of the server.
    """
    httpx, guarded_client = _client()
    body = _body(job)
    headers = _headers(job, body, settings)
    host = httpx.URL(url).host
    try:
        with (
            guarded_client(timeout=TIMEOUT_SECONDS, loopback=job.owner is None) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            status, wait = answer.status_code, answer.headers.get("retry-after", "")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        # Of the error only its name: its text may hold the address, and that a password.
        raise NetworkFailed(
            f"The webhook at {host} cannot be reached.", cause=type(error).__name__
        ) from None
    if 200 <= status < 300:
        return
    message = f"The webhook at {host} answered with the status {status}."
    if status >= 500 or status in _RETRIED:
        raise NetworkFailed(message, cause=f"It asks to wait: {wait[:40]}." if wait else "")
    raise Conflict(
        message,
        cause="It is redirected, which is not followed."
        if status < 400
        else "It refuses the call.",
        hints=["Give the final address of something that takes a POST."],
    )


def _client() -> tuple[Any, Any]:
    """httpx and the guarded client; only a worker that has a webhook to call needs them."""
    try:
        import httpx

        from kinoloom.net import guarded_client
    except ImportError as error:
        raise MissingPackage(
            "A webhook cannot be called.",
            cause="The package httpx is not installed.",
            hints=["pip install 'kinoloom[server]'"],
        ) from error
    return httpx, guarded_client


def _headers(job: JobRecord, body: bytes, settings: Settings) -> dict[str, str]:
    message_id = f"msg_{job.id}_{job.run}"
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"kinoloom/{metadata.version('kinoloom')}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
    }
    if settings.webhook_secret is not None:
        secret = settings.webhook_secret.get_secret_value()
        headers["webhook-signature"] = sign(secret, message_id, timestamp, body)
    return headers


def _body(job: JobRecord) -> bytes:
    """What happened, as JSON. Request and plan are left to those who ask for the job: they name
    places on this machine's disk."""
    everything = job.as_dict()
    links = {"self": f"/api/jobs/{job.id}"}
    if job.clip_id is not None:
        links["clip"] = f"/api/clips/{job.clip_id}"
    told = {
        "type": _TYPES[job.state],
        "timestamp": everything["finished_at"] or everything["updated_at"],
        "data": {name: everything[name] for name in _TOLD} | {"links": links},
    }
    return json.dumps(told, separators=(",", ":")).encode()


def _key(secret: str) -> bytes:
    if secret.startswith(_SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass  # text that only begins alike
    return secret.encode()
