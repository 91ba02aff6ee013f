"""Whether Google can be used, and what is said where it cannot, with its own SDK and the fake."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.google import KEY, PROJECT, FakeGoogle
from fakes.orders import PROMPT, order_of
from kinoloom.backends.google import backend
from kinoloom.backends.google.backend import GoogleBackend
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    Forbidden,
    MissingPackage,
    NetworkFailed,
    NotAuthenticated,
    ProviderRetired,
)

CARD = Catalog.load().get("google-omni-1.2-flash")
VEO = Catalog.load().get("google-veo-3.1")
Made = Callable[..., GoogleBackend]


@pytest.fixture
def google(fake: FakeGoogle, made: Made) -> GoogleBackend:
    return made(fake.url)


def test_without_a_key_it_is_not_ready(
    fake: FakeGoogle, monkeypatch: pytest.MonkeyPatch, made: Made
) -> None:
    google = made(fake.url, None)
    ready = google.readiness(CARD)
    assert not ready.ready
    assert "GEMINI_API_KEY" in ready.hints[0]
    with pytest.raises(NotAuthenticated):
        google.submit(order_of(CARD), CARD)
    verified = google.verify()
    assert not verified.ready
    assert len(verified.reasons) == 3
    monkeypatch.setenv("GEMINI_API_KEY", "other")
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")  # it changes nothing
    assert google.readiness(CARD).ready
    assert google.verify().ready
    google.submit(order_of(CARD), CARD)
    assert fake.bill == {PROMPT: 1}


def test_the_address_may_come_from_the_environment(
    fake: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"{fake.url}/")
    google = GoogleBackend(Settings.model_validate({"backends": {"google": {"api_key": KEY}}}))
    google.submit(order_of(CARD), CARD)
    assert fake.creates == 1


def test_a_retired_model_names_its_successor(
    fake: FakeGoogle, google: GoogleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    retired = Catalog.load().get("google-omni-flash-preview")
    monkeypatch.setattr(backend, "_today", lambda: datetime.date(2026, 9, 29))
    assert google.readiness(retired).ready
    monkeypatch.setattr(backend, "_today", lambda: datetime.date(2026, 9, 30))
    ready = google.readiness(retired)
    assert not ready.ready
    assert "2026-09-30" in ready.reasons[0]
    assert "google-omni-1.2-flash" in ready.hints[0]
    with pytest.raises(ProviderRetired):
        google.submit(order_of(retired), retired)
    assert fake.creates == 0


def test_without_the_package_it_is_not_ready(
    fake: FakeGoogle, monkeypatch: pytest.MonkeyPatch, made: Made
) -> None:
    monkeypatch.setitem(sys.modules, "google.genai", None)
    google = made(fake.url, project=PROJECT)
    for card in (CARD, VEO):
        ready = google.readiness(card)
        assert not ready.ready
        assert ready.hints == ("pip install 'kinoloom[google]'",)
        with pytest.raises(MissingPackage):
            google.submit(order_of(card), card)
    assert not google.verify().ready


def test_without_an_account_veo_is_not_ready(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = google.readiness(VEO)
    assert [reason.split()[2] for reason in ready.reasons] == ["no", "no"]
    assert any("GOOGLE_CLOUD_PROJECT" in hint for hint in ready.hints)
    with pytest.raises(Forbidden, match="project"):
        google.submit(order_of(VEO), VEO)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    (reason,) = google.readiness(VEO).reasons
    assert "not there" in reason
    with pytest.raises(NotAuthenticated):
        google.submit(order_of(VEO), VEO)
    assert fake.creates == 0


def test_the_account_of_a_machine_of_googles_counts(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = made("http://127.0.0.1:9", project=PROJECT)
    assert not google.readiness(VEO).ready
    monkeypatch.setenv("K_SERVICE", "kinoloom")
    assert google.readiness(VEO).ready


def test_a_key_file_is_tried_before_anything_is_asked(
    fake: FakeGoogle, made: Made, service_account: Path
) -> None:
    google = made(fake.url, None, project=PROJECT, credentials=service_account)
    assert google.readiness(VEO).ready
    assert google.verify().ready
    fake.revoked = True
    again = made(fake.url, None, project=PROJECT, credentials=service_account)
    with pytest.raises(NotAuthenticated) as caught:
        again.submit(order_of(VEO), VEO)
    assert "invalid_grant" in caught.value.cause
    verified = again.verify()
    assert not verified.ready
    assert verified.reasons[0].startswith("Vertex AI")
    assert fake.creates == 0


def test_a_key_file_that_is_none_is_told_without_its_words(
    fake: FakeGoogle, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "account.json"
    file.write_text('{"type": "service_account", "private_key": "very secret"}')
    google = made(fake.url, None, project=PROJECT, credentials=file)
    with pytest.raises(NotAuthenticated) as caught:
        google.submit(order_of(VEO), VEO)
    assert "secret" not in str(caught.value.as_dict())


def test_a_token_server_that_does_not_answer_is_a_matter_of_the_network(
    fake: FakeGoogle, made: Made, service_account: Path
) -> None:
    words = service_account.read_text().replace(f"{fake.url}/token", "http://127.0.0.1:1/token")
    service_account.write_text(words)
    google = made(fake.url, None, project=PROJECT, credentials=service_account)
    with pytest.raises(NetworkFailed, match="token"):
        google.submit(order_of(VEO), VEO)
