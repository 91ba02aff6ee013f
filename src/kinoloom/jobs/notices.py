"""Where may a service call when an order is done?"""

from __future__ import annotations

from kinoloom.config import Settings
from kinoloom.store.remote_calls import RemoteCall

PATH = "/api/hooks/{backend}/{call}"
"""The path of this server's route for such calls."""


def notified_at(settings: Settings, call: RemoteCall) -> str | None:
    """The address for one order; None where services cannot reach this server."""
    if settings.public_url is None:
        return None
    return settings.public_url + PATH.format(backend=call.backend, call=call.id)
