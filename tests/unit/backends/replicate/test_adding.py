from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fakes.orders import order_of, png
from fakes.replicate import FakeReplicate
from fakes.replicate_models import VERSION, models
from kinoloom import models as api
from kinoloom.backends.replicate.adding import card_from_schema
from kinoloom.backends.replicate.backend import ReplicateBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_sections import BackendsSettings, ReplicateSettings
from kinoloom.errors import InvalidRequest, ModelBroken, ModelNotFound, NotAuthenticated


@pytest.fixture
def fake() -> Iterator[FakeReplicate]:
    with FakeReplicate() as fake:
        yield fake


@pytest.fixture
def settings(fake: FakeReplicate, tmp_path: Path) -> Settings:
    own = ReplicateSettings(api_key=SecretStr(fake.token), base_url=fake.url)
    return Settings(home=tmp_path / "home", backends=BackendsSettings(replicate=own))


def made(model: str, **changes: Any) -> ModelCard:
    document = models()[model]
    document["components"]["schemas"]["Input"]["properties"] |= changes
    return ModelCard.model_validate(card_from_schema(model, document, "mine"))


def rule(**duration: Any) -> tuple[int, int, int, int]:
    found = made("google/veo-3.1", duration=duration).frames
    return found.multiple, found.minimum, found.maximum, found.default


def test_a_schema_becomes_a_card() -> None:
    card = made("google/veo-3.1")
    assert card.tasks == ("t2v", "i2v", "flf2v", "r2v")
    assert card.pipelines["flf2v"].inputs == {"image": "image", "last_image": "last_frame"}
    assert set(card.sizes.native) == {(1280, 720), (720, 1280), (1920, 1080), (1080, 1920)}
    assert card.sizes.default == (1920, 1080)
    assert rule(type="integer", enum=[4, 6, 8], default=8) == (48, 96, 192, 192)
    assert card.negative
    assert card.remote is not None
    assert card.remote.audio == "optional"
    assert card.price is None
    assert any("frame rate" in guess for guess in card.unverified)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "enum": ["5s", "10s"], "default": "5s"}, (120, 120, 240, 120)),
        ({"type": "integer", "minimum": 2, "maximum": 12, "default": 5}, (24, 48, 288, 120)),
        ({"type": "integer", "minimum": -1, "maximum": 15, "default": 5}, (24, 24, 360, 120)),
        ({"type": "integer", "enum": [5], "default": 5}, (120, 120, 120, 120)),
        ({"type": "integer", "enum": [2, 5, 6], "default": 5}, (120, 120, 120, 120)),
        ({"type": "integer", "default": 6, "minimum": 6}, (144, 144, 144, 144)),
    ],
)
def test_seconds_become_frames(schema: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert rule(**schema) == expected


def test_a_model_that_counts_frames_keeps_its_count() -> None:
    card = made("wan-video/wan-2.2-t2v-fast")
    frames = card.frames
    assert (frames.multiple, frames.offset, frames.minimum, frames.maximum) == (4, 1, 81, 121)
    assert (card.fps.minimum, card.fps.default, card.fps.maximum) == (5, 16, 30)
    assert card.pipelines["t2v"].arguments == {"interpolate_output": False}


def test_free_sizes_steps_and_guidance() -> None:
    card = made("someone/animate")
    assert card.tasks == ("i2v",)
    assert (card.sizes.multiple_of, card.sizes.minimum, card.sizes.maximum) == (16, 256, 1280)
    assert not card.sizes.only_native
    assert (card.steps.default, card.steps.maximum, card.guidance.maximum) == (30, 50, 20)


@pytest.mark.parametrize("model", ["meta/words"])
def test_a_model_that_makes_no_video_is_refused(model: str) -> None:
    with pytest.raises(ModelBroken, match="makes no video"):
        made(model)


def test_a_model_without_words_is_refused() -> None:
    document = models()["google/veo-3.1"]
    del document["components"]["schemas"]["Input"]["properties"]["prompt"]
    with pytest.raises(ModelBroken, match="takes no words"):
        card_from_schema("a/b", document, "mine")


def test_a_model_that_needs_other_files_is_refused() -> None:
    document = models()["google/veo-3.1"]
    entry = document["components"]["schemas"]["Input"]
    entry["properties"]["audio_file"] = {"type": "string", "format": "uri"}
    entry["required"].append("audio_file")
    with pytest.raises(ModelBroken, match="needs more"):
        card_from_schema("a/b", document, "mine")


def test_an_added_model_makes_clips(
    fake: FakeReplicate, settings: Settings, tmp_path: Path
) -> None:
    added = api.add_model("replicate:google/veo-3.1", settings, model="my-veo")
    assert added.card == settings.models / "my-veo.yaml"
    card = Catalog.load(settings.models).get("my-veo")
    backend = ReplicateBackend(settings)
    assert backend.readiness(card).ready
    backend.submit(order_of(card, "t2v"), card)
    assert fake.creates == 1


def test_a_model_that_is_not_official_is_kept_at_its_version(
    fake: FakeReplicate, settings: Settings, tmp_path: Path
) -> None:
    added = api.add_model("replicate:someone/animate", settings)
    assert added.model == "replicate-animate"
    card = Catalog.load(settings.models).get(added.model)
    assert card.source.service == f"someone/animate:{VERSION}"
    backend = ReplicateBackend(settings)
    order = order_of(card, "i2v", inputs={"image": png(tmp_path / "a.png")})
    ticket = backend.submit(order, card)
    assert fake.predictions[ticket.remote_id].version == VERSION


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("replicate:veo", InvalidRequest),
        ("replicate:../account", ModelBroken),
        ("replicate:a/b/c", InvalidRequest),
        ("replicate:a/b:latest", InvalidRequest),
        ("replicate:nobody/nothing", ModelNotFound),
        ("replicate:meta/words", ModelBroken),
    ],
)
def test_what_cannot_be_added_is_refused_and_leaves_nothing(
    settings: Settings, target: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        api.add_model(target, settings)
    assert not settings.models.exists()


def test_an_id_that_is_taken_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="mistake"):
        api.add_model("replicate:google/veo-3.1", settings)  # the packaged card has that id


def test_without_a_token_it_is_said(
    fake: FakeReplicate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    with pytest.raises(NotAuthenticated):
        api.add_model("replicate:google/veo-3.1-x", Settings(home=tmp_path))


@pytest.mark.parametrize(
    "junk",
    [
        {"width": {"maximum": 1e9}, "height": {"maximum": 1e9}},
        {"num_frames": {"default": 10**12}},
        {"duration": {"enum": [10**9]}},
        {"fps": {"enum": [1000]}},
        {"num_inference_steps": {"default": 10**9}},
    ],
)
def test_a_schema_of_junk_ends_in_a_named_error(junk: dict[str, Any]) -> None:
    entry = {"properties": {"prompt": {}, **junk}}
    with pytest.raises(ModelBroken):
        card_from_schema("a/b", {"components": {"schemas": {"Input": entry}}}, "mine")


def test_what_is_no_number_is_passed_over() -> None:
    card = made("google/veo-3.1", fps={"default": "x", "enum": ["y"]}, seed={"enum": {}})
    assert card.fps.default == 24
