from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from fakes.replicate import WEBHOOK_SECRET, signed
from kinoloom.config_sections import BackendsSettings, ReplicateSettings
from kinoloom.server.limits import MAX_JSON
from kinoloom.server.routes.hooks import TOLERANCE_SECONDS
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits
from kinoloom.store.store import Store
from serving import local_client

BODY = json.dumps({"id": "p1", "status": "succeeded", "output": "https://evil.example"}).encode()
OTHER = base64.b64encode(b"x" * 32).decode()
Make = Callable[..., FastAPI]


@pytest.fixture
def call(store: Store) -> str:
    """The id of a call that Replicate is working on."""
    record = JobRecord(
        queue="api", origin="api", request={}, task="t2v", model="m", backend="replicate"
    )
    job = store.jobs.add(record)[0].id
    made = store.remote_calls.reserve(
        job, 0, backend="replicate", model="m", amount=None, limits=Limits()
    )
    assert store.remote_calls.send(made.id)
    return made.id


@pytest.fixture
def client(shell: Make) -> TestClient:
    return client_of(shell)


def client_of(shell: Make, *, secret: str | None = WEBHOOK_SECRET, **options: Any) -> TestClient:
    own = ReplicateSettings(webhook_secret=None if secret is None else SecretStr(secret))
    app = shell(require_key=True, backends=BackendsSettings(replicate=own))
    return local_client(app, **options)


def nudged(store: Store, call_id: str) -> bool:
    found = store.remote_calls.get(call_id)
    assert found is not None
    return found.nudged_at is not None


def test_a_signed_call_has_the_prediction_looked_at(
    client: TestClient, store: Store, call: str
) -> None:
    answer = client.post(f"/api/hooks/replicate/{call}", content=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.content) == (204, b"")
    assert nudged(store, call)


def test_it_is_heard_on_a_server_without_keys_under_any_name(
    shell: Make, store: Store, call: str
) -> None:
    own = BackendsSettings(replicate=ReplicateSettings(webhook_secret=SecretStr(WEBHOOK_SECRET)))
    app = shell(require_key=False, backends=own)
    far = local_client(app, base_url="https://studio.example", client=("203.0.113.9", 1))
    answer = far.post(f"/api/hooks/replicate/{call}", content=BODY, headers=signed(BODY))
    assert answer.status_code == 204
    assert far.get("/api/jobs").status_code == 403  # all else stays shut


def without(name: str) -> dict[str, str]:
    return {k: v for k, v in signed(BODY).items() if k != name}


# Made when the test runs: a signature is valid for some minutes only.
UNSIGNED: dict[str, Callable[[], dict[str, str]]] = {
    "nothing": dict,
    "no id": lambda: without("webhook-id"),
    "no time": lambda: without("webhook-timestamp"),
    "no signature": lambda: without("webhook-signature"),
    "another id": lambda: signed(BODY) | {"webhook-id": "msg_2"},
    "another time": lambda: signed(BODY) | {"webhook-timestamp": str(int(time.time()) + 9)},
    "a time of forty digits": lambda: signed(BODY) | {"webhook-timestamp": "9" * 40},
    "a time before all time": lambda: signed(BODY) | {"webhook-timestamp": "-1"},
    "another signature": lambda: signed(BODY) | {"webhook-signature": f"v1,{OTHER}"},
    "an empty signature": lambda: signed(BODY) | {"webhook-signature": "v1,"},
    "another body": lambda: signed(BODY + b" "),
    "another secret": lambda: signed(BODY, secret="whsec_" + OTHER),
    "too old": lambda: signed(BODY, at=int(time.time()) - TOLERANCE_SECONDS - 60),
    "of the future": lambda: signed(BODY, at=int(time.time()) + TOLERANCE_SECONDS + 60),
    "a key": lambda: {"Authorization": "Bearer kl_" + "x" * 43},
}


@pytest.mark.parametrize("headers", UNSIGNED.values(), ids=UNSIGNED)
def test_what_is_not_signed_changes_nothing(
    client: TestClient, store: Store, call: str, headers: Callable[[], dict[str, str]]
) -> None:
    answer = client.post(f"/api/hooks/replicate/{call}", content=BODY, headers=headers())
    assert answer.status_code == 401
    assert answer.json()["kind"] == "authentication"
    assert not nudged(store, call)


def test_a_signature_that_is_no_ascii_is_refused(client: TestClient, call: str) -> None:
    headers = {k.encode(): v.encode() for k, v in signed(BODY).items()}
    headers[b"webhook-signature"] = b"v1,\xe4\xff"
    answer = client.post(f"/api/hooks/replicate/{call}", content=BODY, headers=headers)
    assert answer.status_code == 401


def test_several_signatures_may_be_sent_but_not_any_number(client: TestClient, call: str) -> None:
    headers = signed(BODY)
    right = headers["webhook-signature"].split()[-1]
    headers["webhook-signature"] = " ".join(["v1,AAAA"] * 9 + [right])
    url = f"/api/hooks/replicate/{call}"
    assert client.post(url, content=BODY, headers=headers).status_code == 204
    headers["webhook-signature"] = " ".join(["v1,AAAA"] * 10 + [right])
    assert client.post(url, content=BODY, headers=headers).status_code == 401


# The first looks like the id of a call.
@pytest.mark.parametrize(
    "name", ["01a1fff8-c83f-7000-8c15-ef756976050c", "nothing", "a%00b", "x" * 500]
)
def test_who_is_not_signed_learns_nothing_of_what_there_is(
    client: TestClient, shell: Make, call: str, name: str
) -> None:
    known = client.post(f"/api/hooks/replicate/{call}", content=BODY)
    unknown = client.post(f"/api/hooks/replicate/{name}", content=BODY)
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    genuine = client.post(f"/api/hooks/replicate/{name}", content=BODY, headers=signed(BODY))
    silent = client_of(shell, secret=None)
    without_secret = silent.post(f"/api/hooks/replicate/{call}", content=BODY, headers=signed(BODY))
    assert genuine.status_code == without_secret.status_code == 404
    assert genuine.json() == without_secret.json()


def test_a_call_that_is_done_is_heard_and_left_alone(
    client: TestClient, store: Store, call: str
) -> None:
    store.remote_calls.settle(call, "succeeded", charged=None)
    answer = client.post(f"/api/hooks/replicate/{call}", content=BODY, headers=signed(BODY))
    assert answer.status_code == 204
    assert not nudged(store, call)


def test_a_huge_body_is_not_read(client: TestClient, store: Store, call: str) -> None:
    huge = b"x" * (MAX_JSON + 1)
    answer = client.post(f"/api/hooks/replicate/{call}", content=huge, headers=signed(huge))
    assert answer.status_code == 413
    assert not nudged(store, call)


@pytest.mark.parametrize("path", ["/api/hooks/", "/api/hooks/replicate", "/api/hooks/../jobs"])
def test_nothing_else_is_reached_that_way(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (401, 404, 405)
