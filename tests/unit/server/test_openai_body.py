from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from kinoloom.server.openai.body import Sent


@pytest.fixture
def client(shell: Callable[..., FastAPI]) -> TestClient:
    app = shell()

    @app.post("/v1/test/body")
    def body(sent: Sent) -> dict[str, Any]:
        files = {name: file.file.read().decode() for name, file in sent.files.items()}
        return {"values": dict(sent.values), "files": files}

    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))


def test_a_form_and_json_are_the_same(client: TestClient) -> None:
    form = {"prompt": "a", "extra_params[seed]": "1", "extra_params[loras][]": ["x", "y"]}
    json = {"prompt": "a", "extra_params": {"seed": "1", "loras": ["x", "y"]}}
    answers = [
        client.post("/v1/test/body", data=form),
        client.post("/v1/test/body", data=form, files={"video": ("v", b"bytes")}),
        client.post("/v1/test/body", json=json),
    ]
    assert [answer.json()["values"] for answer in answers] == [json] * 3
    assert answers[1].json()["files"] == {"video": "bytes"}


@pytest.mark.parametrize(
    "form",
    [
        {"seed": ["1", "2"]},
        {"a": "1", "a[b]": "2"},
        {"a[b]": "1", "a": "2"},
        {"a[]": "1", "a[b]": "2"},
        {"a[b]": "1", "a[]": "2"},
        {"a": "1", "a[]": "2"},
        {"a[b][c][d][e]": "1"},
        {"a[][b]": "1"},
        {"": "1"},
    ],
)
def test_names_that_contradict_each_other(client: TestClient, form: dict[str, Any]) -> None:
    answer = client.post("/v1/test/body", data=form)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_params"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[1]", 400),
        ("application/json", b'{"a": NaN}', 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b"\xff", 400),
        ("multipart/form-data; boundary=x", b"--y\r\n", 400),
        ("multipart/form-data", b"", 400),
        ("text/plain", b"prompt", 415),
        ("", b"prompt", 415),
    ],
)
def test_what_cannot_be_read(client: TestClient, kind: str, body: bytes, status: int) -> None:
    answer = client.post("/v1/test/body", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
