from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from api_client import png
from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, InvalidRequest, KinoloomError
from kinoloom.request import VideoRequest
from kinoloom.server.bodies import KINDS, read_json
from kinoloom.server.clip_document import CLIP_BODY
from kinoloom.server.clip_request import OPTIONS, ClipRequest, read_clip_request
from kinoloom.server.schemas import without_places
from kinoloom.store.store import Store

SCHEMA = CLIP_BODY["requestBody"]["content"]["application/json"]["schema"]


def read(store: Store, settings: Settings, **fields: Any) -> ClipRequest:
    return read_clip_request(fields, store, settings)


def mistakes(store: Store, settings: Settings, **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        read_clip_request(fields, store, settings)
    return {problem.field: problem.allowed for problem in caught.value.problems}


@pytest.fixture
def picture(store: Store) -> str:
    return store.assets.put_bytes(png(), "image").digest


def test_fields_and_options_are_read(store: Store, settings: Settings) -> None:
    signing = settings.model_copy(update={"webhook_secret": SecretStr("s")})
    asked = read(
        store,
        signing,
        prompt="a ball",
        size="720p",
        loras=["film:0.5", {"name": "owner/repo:a.safetensors"}],
        priority=3,
        timeout=60,
        webhook="https://me.example/hook?a=1",
        hold=True,
    )
    assert asked.request.size == (1280, 720)
    assert [lora.name for lora in asked.request.loras] == ["film", "owner/repo:a.safetensors"]
    assert vars(asked.options) == {
        "priority": 3,
        "timeout": 60.0,
        "webhook": "https://me.example/hook?a=1",
        "hold": True,
    }


def test_a_webhook_needs_a_secret_and_is_never_repeated(store: Store, settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(store, settings, prompt="a ball", webhook="https://u:word@me.example/hook")
    assert [problem.field for problem in caught.value.problems] == ["webhook"]
    assert "word@" not in str(caught.value.as_dict())


def test_every_mistake_is_named_at_once(store: Store, settings: Settings) -> None:
    found = mistakes(
        store,
        settings,
        prompt="",
        steps=999,
        nope=1,
        priority=1001,
        timeout="soon",
        webhook="ftp://a.example",
        hold="yes",
        video="/etc/passwd",
        references=["a.png", {"asset": "sha256:" + "0" * 64}],
    )
    assert set(found) == {
        *("steps", "nope", "priority", "timeout", "webhook", "hold", "video"),
        *("references.0", "references.1"),
    }


@pytest.mark.parametrize("field", sorted(KINDS))
@pytest.mark.parametrize(
    "place",
    ["/etc/passwd", "../x.png", "file:///x.png", "http://a.example/x.png", 5, {"path": "x"}],
)
def test_a_place_that_a_client_names_is_refused(
    store: Store, settings: Settings, field: str, place: Any
) -> None:
    value = {"references": [place], "keyframes": [[0, place]]}.get(field, place)
    open_settings = settings.model_copy(update={"image_urls": True})
    found = mistakes(store, open_settings, prompt="a ball", **{field: value})
    assert {name.partition(".")[0] for name in found} >= {field}


def test_an_output_or_a_folder_of_pictures_is_refused(store: Store, settings: Settings) -> None:
    assert set(mistakes(store, settings, prompt="a ball", output="x.mp4")) == {"output"}
    assert read(store, settings, prompt="a ball", output=None).request.output is None
    assert set(mistakes(store, settings, prompt="a ball", format="png")) == {"format"}


@pytest.mark.parametrize(
    "name",
    [
        "/lora.safetensors",
        "./film",
        "~/film",
        "..",
        "a/../b",
        "owner/repo:../x",
        "C:\\film",
        "a\0b",
    ],
)
@pytest.mark.parametrize("as_object", [True, False])
def test_a_lora_is_no_path(store: Store, settings: Settings, name: str, as_object: bool) -> None:
    lora = {"name": name} if as_object else name
    assert "loras" in mistakes(store, settings, prompt="a ball", loras=[lora])


def test_media_become_files_of_the_store(store: Store, settings: Settings, picture: str) -> None:
    inline = "data:image/png;base64," + base64.b64encode(png(16, 16)).decode()
    asked = read(
        store,
        settings,
        prompt="a ball",
        image={"asset": picture},
        references=[picture, inline],
        keyframes={"24": picture},
    )
    request = asked.request
    assert request.image == store.assets.path(picture)
    assert request.references[0] == request.image
    assert request.references[1].read_bytes() == png(16, 16)
    assert request.keyframes == ((24, request.image),)


def test_what_is_shown_of_a_request_may_be_sent_again(
    store: Store, settings: Settings, picture: str
) -> None:
    asked = read(store, settings, prompt="", image=picture, keyframes=[[3, picture]])
    shown = without_places(asked.request.model_dump(mode="json"))
    assert shown["image"] == picture
    assert str(store.home) not in json.dumps(shown)
    assert read(store, settings, **shown) == asked


def test_places_that_are_no_assets_are_shown_by_name_and_words_as_they_are() -> None:
    shown = without_places(
        {
            "prompt": "/home/me",
            "image": "/home/me/a.png",
            "inputs": {"mask": {"path": Path("/b/c")}},
        }
    )
    assert shown == {"prompt": "/home/me", "image": "a.png", "inputs": {"mask": {"path": "c"}}}


def test_a_sentence_names_a_file_of_the_store_by_its_digest(store: Store, picture: str) -> None:
    shown = without_places({"cause": f"The picture {store.assets.path(picture)} is broken."})
    assert shown == {"cause": f"The picture {picture} is broken."}
    assert without_places({"prompt": "a" * 20_000}) == {"prompt": "a" * 20_000}


def test_inline_data_that_is_no_picture_is_refused(store: Store, settings: Settings) -> None:
    text = "data:image/png;base64," + base64.b64encode(b"#!/bin/sh").decode()
    with pytest.raises(InvalidMedia):
        read(store, settings, prompt="a ball", image=text)
    for broken in ("data:image/png,abc", "data:;base64,***", "data:;base64,"):
        assert "image" in mistakes(store, settings, prompt="a ball", image=broken)


def test_addresses_need_the_setting_and_never_name_videos(store: Store, settings: Settings) -> None:
    address = "https://a.example/x.png"
    assert "image_urls" in mistakes(store, settings, prompt="a", image=address)["image"]
    open_settings = settings.model_copy(update={"image_urls": True})
    assert "video" in mistakes(store, open_settings, prompt="a", video=address)


def test_the_fingerprint_tells_requests_options_and_callers_apart(
    store: Store, settings: Settings
) -> None:
    asked = read(store, settings, prompt="a ball")
    same = read(store, settings, prompt="a ball", priority=100)
    others = [
        read(store, settings, prompt="a ball", priority=1).fingerprint("k"),
        read(store, settings, prompt="two balls").fingerprint("k"),
        asked.fingerprint("another"),
    ]
    assert same.fingerprint("k") == asked.fingerprint("k")
    assert asked.fingerprint("k") not in others


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"{", b"\xff", b'{"a": NaN}', b'{"a": ' + b"9" * 5000 + b"}", b"[" * 90_000],
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_json(body)


def test_more_fields_than_there_are_are_not_even_looked_at(
    store: Store, settings: Settings
) -> None:
    assert set(mistakes(store, settings, **{f"f{n}": 1 for n in range(100)})) == {"body"}
    assert set(mistakes(store, settings, **{"f" * 1000: 1})) == {"body"}


def test_the_document_has_every_field_but_those_that_name_places() -> None:
    assert set(SCHEMA["properties"]) == {*VideoRequest.model_fields, *OPTIONS} - {"output"}
    assert "$defs" not in json.dumps(SCHEMA)
    assert "png" not in SCHEMA["properties"]["format"]["enum"]


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(
        ["sha256:" + "0" * 64, "https://a.example/b", "data:;base64,AAAA", "720p", "\0", "\ud800"]
    )
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@with_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fields=st.dictionaries(
        st.sampled_from(sorted({*VideoRequest.model_fields, *OPTIONS})) | st.text(max_size=8),
        _VALUES,
        max_size=6,
    )
)
def test_any_fields_give_a_request_or_a_known_error(
    store: Store, settings: Settings, fields: dict[str, Any]
) -> None:
    try:
        asked = read_clip_request(fields, store, settings)
    except KinoloomError as error:
        json.dumps(error.as_dict(), allow_nan=False, ensure_ascii=False).encode("utf-8")
    else:
        assert asked.request.output is None
        assert 0 <= asked.options.priority <= 1000
