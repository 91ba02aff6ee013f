from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.google import KEY, FakeGoogle
from kinoloom.backends.base import RemoteStatus, Ticket
from kinoloom.backends.google import access
from kinoloom.backends.google.backend import GoogleBackend
from kinoloom.backends.remote import retries
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings

VARIABLES = (
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_VERTEX_BASE_URL",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_GENAI_USE_ENTERPRISE",
    "STORAGE_EMULATOR_HOST",
    "GCE_METADATA_HOST",
    "K_SERVICE",
)

Made = Callable[..., GoogleBackend]
Ended = Callable[[GoogleBackend, Ticket, ModelCard], RemoteStatus]

# Each client of the SDK reads all root certificates four times, though none is needed here.
_CONTEXT = functools.cache(ssl.create_default_context)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No pauses, no TLS, and nothing of this machine's own account."""
    nowhere = tmp_path_factory.mktemp("nowhere")
    monkeypatch.setattr(retries, "_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: _CONTEXT())
    monkeypatch.setattr(access, "_PRODUCT", nowhere / "product_name")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(nowhere))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> Iterator[FakeGoogle]:
    with FakeGoogle() as server:
        yield server


@pytest.fixture
def made() -> Made:
    """A backend for a server's address, with the right key or another, or None for no key."""

    def make(url: str, key: str | None = KEY, **more: Any) -> GoogleBackend:
        own: dict[str, Any] = {"base_url": url, "vertex_url": url, **more}
        own |= {} if key is None else {"api_key": key}
        return GoogleBackend(Settings.model_validate({"backends": {"google": own}}))

    return make


@pytest.fixture
def ended() -> Ended:
    """The status in which an order ends."""

    def look(google: GoogleBackend, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        for _ in range(20):
            status = google.poll(ticket, card)
            if status.state not in ("queued", "running"):
                return status
        raise AssertionError("the order did not end")

    return look


@pytest.fixture(scope="session")
def private_key() -> str:
    """A key as the key file of a service account has it."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def service_account(fake: FakeGoogle, private_key: str, tmp_path: Path) -> Path:
    """The key file of a service account whose tokens come from the fake."""
    file = tmp_path / "account.json"
    file.write_text(json.dumps(fake.service_account(private_key)))
    return file
