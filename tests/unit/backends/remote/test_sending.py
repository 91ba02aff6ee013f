from __future__ import annotations

import datetime
from email.utils import format_datetime

import httpx
import pytest

from kinoloom.backends.remote.retired import retired
from kinoloom.backends.remote.retries import wait_asked
from kinoloom.backends.remote.sending import unanswered
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import NetworkFailed, Uncertain

RETIRED = datetime.date(2026, 9, 24)


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError]
)
def test_without_a_connection_a_call_never_arrived(error: type[httpx.HTTPError]) -> None:
    told = unanswered(error("no"), "The service", hints=["look it up"])
    assert isinstance(told, NetworkFailed)
    assert told.cause == error.__name__


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("late"),
        httpx.WriteTimeout("late"),
        httpx.WriteError("broken"),
        httpx.ReadError("broken"),
        httpx.RemoteProtocolError("broken"),
        RuntimeError("what nobody thought of"),
        None,
    ],
)
def test_after_that_nobody_knows(error: Exception | None) -> None:
    told = unanswered(error, "The service", hints=["look it up"])
    assert isinstance(told, Uncertain)
    assert told.hints == ("look it up",)


@pytest.fixture
def card() -> ModelCard:
    card = Catalog.load().get("runway-gen4.5")
    return card.model_copy(update={"retirement": RETIRED, "successor": "runway-veo-3.1"})


def test_a_model_is_retired_from_its_day_on(card: ModelCard) -> None:
    assert retired(card, RETIRED - datetime.timedelta(days=1)) is None
    told = retired(card, RETIRED)
    assert told is not None
    assert not told.ready
    assert told.reasons == ("It was retired on 2026-09-24.",)
    assert told.hints == ("Use its successor: runway-veo-3.1",)


def test_a_model_without_a_day_is_never_retired(card: ModelCard) -> None:
    lasting = card.model_copy(update={"retirement": None})
    assert retired(lasting, datetime.date(2099, 1, 1)) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), (" 0.5 ", 0.5), ("", None), (None, None), ("soon", None), ("-3", None), ("٣", None)],
)
def test_a_wait_is_read_in_seconds(header: str | None, seconds: float | None) -> None:
    assert wait_asked(header) == seconds


def test_a_wait_is_read_as_a_date() -> None:
    now = datetime.datetime.now(datetime.UTC)
    later = wait_asked(format_datetime(now + datetime.timedelta(hours=1), usegmt=True))
    assert later is not None
    assert 3000 < later <= 3600
    assert wait_asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0
