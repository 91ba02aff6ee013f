"""How does a service tell that it is done?

By a call that is signed in the form of the Standard Webhooks specification
(https://www.standardwebhooks.com), as Replicate does. Who calls has no key of this server: the
signature is all that counts. The body proves nothing and is not looked into; the call only says
that it is worth looking now, and whoever looks asks the service itself.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from kinoloom.errors import NotAuthenticated, NotFound
from kinoloom.jobs.webhooks import sign
from kinoloom.server.deps import SettingsDep, StoreDep
from kinoloom.store.store import Store

TOLERANCE_SECONDS = 300
"""How far the time of a call may be from ours; an older one may be somebody's recording."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST_SIGNATURES = 10

# It is no part of the API: nobody but the service calls it.
router = APIRouter(prefix="/api/hooks", include_in_schema=False)


@router.post("/replicate/{call}", status_code=204)
async def hear_replicate(
    request: Request, store: StoreDep, settings: SettingsDep, call: Annotated[str, Path()]
) -> Response:
    """Have a call looked at now, because Replicate says so.

    Raises NotAuthenticated for a call that is not signed with the settings' secret, NotFound for
    one that nobody here made, or when there is no secret.
    """
    secret = settings.backends.replicate.webhook_secret
    if secret is None:
        raise _nothing()
    message_id, timestamp = _signed_at(request)
    body = await request.body()
    expected = sign(secret.get_secret_value(), message_id, timestamp, body).encode()
    given = request.headers.get("webhook-signature", "").split(" ", _MOST_SIGNATURES)
    same = [hmac.compare_digest(one.encode(), expected) for one in given[:_MOST_SIGNATURES]]
    if not any(same):
        raise NotAuthenticated("The signature of the webhook is not valid.")
    if not _UUID.fullmatch(call) or not await run_in_threadpool(_nudge, store, call):
        raise _nothing()
    return Response(status_code=204)


def _signed_at(request: Request) -> tuple[str, int]:
    """The id and the time that a call was signed with. Raises NotAuthenticated."""
    message_id = request.headers.get("webhook-id", "")
    stamp = request.headers.get("webhook-timestamp", "")
    if not message_id or not re.fullmatch(r"\d{1,12}", stamp, re.ASCII):
        raise NotAuthenticated("The webhook is not signed.")
    if abs(time.time() - int(stamp)) > TOLERANCE_SECONDS:
        raise NotAuthenticated("The webhook was signed too long ago.")
    return message_id, int(stamp)


def _nudge(store: Store, call_id: str) -> bool:
    """Whether there is such a call; one that is done already is not looked at again."""
    if store.remote_calls.get(call_id) is None:
        return False
    store.remote_calls.nudge(call_id)
    return True


def _nothing() -> NotFound:
    return NotFound("Nobody here waits for that.")
