"""Where Google's services are asked, with what, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fakes.orders import order_of
from kinoloom.backends.google import access
from kinoloom.backends.google.access import Access
from kinoloom.backends.google.backend import GoogleBackend
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_sections import GoogleSettings
from kinoloom.errors import KinoloomError, ModelBroken, Uncertain

OMNI = Catalog.load().get("google-omni-1.2-flash")
VEO = Catalog.load().get("google-veo-3.1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[httpx2.Request]:
    """The requests that would have gone out; none does."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(500, json={})

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", lambda _, request: answer(request))
    for name in ("GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_API_KEY", "key-of-the-environment")
    return seen


def test_the_gemini_api_is_asked_at_google(asked: list[httpx2.Request]) -> None:
    google = GoogleBackend(Settings())
    with pytest.raises(Uncertain):
        google.submit(order_of(OMNI), OMNI)
    (only,) = asked
    assert str(only.url) == "https://generativelanguage.googleapis.com/v1/interactions"
    assert only.headers["x-goog-api-key"] == "key-of-the-environment"
    assert only.extensions["timeout"] == {
        "connect": access._CONNECT_SECONDS,
        "read": 900.0,
        "write": 900.0,
        "pool": 900.0,
    }


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
    ],
)
def test_vertex_ai_is_asked_in_the_region(
    asked: list[httpx2.Request], region: str, host: str
) -> None:
    from google.oauth2.credentials import Credentials

    own = {"project": "p", "locations": [region]}
    google = GoogleBackend(Settings.model_validate({"backends": {"google": own}}))
    google._access._credentials = Credentials("a-token")
    with pytest.raises(Uncertain):
        google.submit(order_of(VEO), VEO)
    (only,) = asked
    model = "publishers/google/models/veo-3.1-generate-001:predictLongRunning"
    path = f"/v1beta1/projects/p/locations/{region}/{model}"
    assert (only.url.host, only.url.path) == (host, path)
    assert only.headers["authorization"] == "Bearer a-token"
    assert "x-goog-api-key" not in only.headers


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        hosts.append(request.url.host)
        return httpx2.Response(307, headers={"location": "https://elsewhere.example/"})

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", lambda _, request: answer(request))
    own = {"api_key": "k", "base_url": "http://gateway.example"}
    google = GoogleBackend(Settings.model_validate({"backends": {"google": own}}))
    with pytest.raises(Uncertain):
        google.submit(order_of(OMNI), OMNI)
    assert hosts == ["gateway.example"]


def test_the_key_of_the_settings_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in access.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert Access(GoogleSettings()).key is None
    monkeypatch.setenv("GEMINI_API_KEY", " second ")
    assert Access(GoogleSettings()).key == "second"
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert Access(GoogleSettings()).key == "first"
    own: Any = {"api_key": "own"}
    assert Access(GoogleSettings(**own)).key == "own"


def test_gclouds_own_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_PRODUCT", tmp_path / "product")
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "K_SERVICE", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    own = Access(GoogleSettings())
    assert own.credentials_missing() is not None
    (tmp_path / "application_default_credentials.json").write_text("{}")
    assert own.credentials_missing() is None
    (tmp_path / "application_default_credentials.json").unlink()
    (tmp_path / "product").write_text("Google Compute Engine\n")
    assert own.credentials_missing() is None
    named = Access(GoogleSettings(credentials=tmp_path / "none.json"))
    assert "none.json" in str(named.credentials_missing())


def test_a_card_of_no_service_is_broken() -> None:
    odd = VEO.pipelines["t2v"].model_copy(update={"class_name": "imagen"})
    card = VEO.model_copy(update={"pipelines": {"t2v": odd}})
    with pytest.raises(ModelBroken, match="names no service"):
        GoogleBackend(Settings()).submit(order_of(card), card)


def test_looking_costs_no_import() -> None:
    program = (
        "import sys; from kinoloom.backends.google.backend import GoogleBackend\n"
        "from kinoloom.config import Settings; from kinoloom.catalog.loader import Catalog\n"
        "google = GoogleBackend(Settings())\n"
        "[google.readiness(c) for c in Catalog.load() if c.backend == 'google']\n"
        "print([n for n in ('google.genai', 'google.auth', 'httpx2', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_what_the_sdk_raises_is_never_a_traceback(asked: list[httpx2.Request]) -> None:
    google = GoogleBackend(Settings())
    with pytest.raises(KinoloomError) as caught:
        google.submit(order_of(OMNI), OMNI)
    assert caught.value.__cause__ is None
    assert "key-of-the-environment" not in str(caught.value.as_dict())
