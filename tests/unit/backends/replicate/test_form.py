from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from fakes.orders import order_of
from fakes.replicate_models import mistakes, models
from kinoloom.backends.replicate.form import Form, fill, fit
from kinoloom.backends.replicate.pictures import aspect_of, pixels_of, short_side_of
from kinoloom.backends.replicate.schema import Field, fields_of
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidRequest, ModelBroken, Problem

VEO = Catalog.load().get("replicate-veo-3.1")


def veo_fields(**changes: Any) -> dict[str, Field]:
    document = models()["google/veo-3.1"]
    document["components"]["schemas"]["Input"]["properties"] |= changes
    return fields_of(document, "google/veo-3.1")


def without(*names: str) -> dict[str, Field]:
    return {name: place for name, place in veo_fields().items() if name not in names}


def card(**changes: Any) -> ModelCard:
    return ModelCard.model_validate(VEO.model_dump(by_alias=True) | changes)


def problems(fields: dict[str, Field], model: ModelCard = VEO, **changes: Any) -> list[Problem]:
    with pytest.raises(InvalidRequest) as refused:
        fill(order_of(model, **changes), model, fields)
    return list(refused.value.problems)


def form(fields: dict[str, Field], model: ModelCard = VEO, **changes: Any) -> Form:
    return fill(order_of(model, **changes), model, fields)


def test_references_and_ways_of_a_schema_are_resolved() -> None:
    fields = veo_fields()
    assert fields["aspect_ratio"].choices == ("16:9", "9:16")
    assert fields["aspect_ratio"].default == "16:9"
    assert fields["duration"].kind == "integer"
    assert fields["last_frame"].file
    assert fields["reference_images"].file
    assert fields["reference_images"].most == 3
    assert fields["prompt"].required
    assert not fields["resolution"].required


def test_a_circle_of_references_ends() -> None:
    ring = {"$ref": "#/components/schemas/ring"}
    document = models()["google/veo-3.1"]
    document["components"]["schemas"] |= {"ring": ring}
    document["components"]["schemas"]["Input"]["properties"]["odd"] = ring
    assert fields_of(document, "m")["odd"].kind == ""


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"components": None},
        {"components": {"schemas": {"Input": []}}},
        {"components": {"schemas": {"Input": {"properties": {}}}}},
    ],
)
def test_a_model_without_a_schema_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ModelBroken):
        fields_of(document, "m")


@pytest.mark.parametrize(
    ("schema", "value", "sent"),
    [
        ({"kind": "integer"}, 5, 5),
        ({"kind": "integer"}, 5.0, 5),
        ({"kind": "number"}, 0.5, 0.5),
        ({"kind": "string"}, 5, "5"),
        ({"kind": "string", "choices": ("5", "10")}, 5, "5"),
        ({"kind": "string", "choices": ("5s", "10s")}, 10, "10s"),
        ({"kind": "integer", "choices": (4, 6, 8)}, 6.0, 6),
        ({"kind": "boolean"}, False, False),
        ({"kind": ""}, "anything", "anything"),
    ],
)
def test_a_value_becomes_what_the_field_takes(
    schema: dict[str, Any], value: Any, sent: Any
) -> None:
    found = fit(Field("x", **schema), value)
    assert (found, type(found)) == (sent, type(sent))


@pytest.mark.parametrize(
    ("schema", "value", "allowed"),
    [
        ({"kind": "integer"}, 5.5, "a whole number"),
        ({"kind": "integer", "minimum": 6}, 5, "at least 6"),
        ({"kind": "number", "maximum": 4}, 5, "at most 4"),
        ({"kind": "number", "minimum": 1, "maximum": 4}, 5, "1 to 4"),
        ({"kind": "integer", "choices": (4, 6)}, 5, "one of 4, 6"),
        ({"kind": "integer", "choices": (1, 2)}, True, "one of 1, 2"),
        ({"kind": "integer"}, True, "of the type integer"),
        ({"kind": "boolean"}, "yes", "of the type boolean"),
        ({"kind": "number"}, "words", "of the type number"),
    ],
)
def test_what_a_field_does_not_take_is_said(
    schema: dict[str, Any], value: Any, allowed: str
) -> None:
    with pytest.raises(ValueError, match=f"^{allowed}$"):
        fit(Field("x", **schema), value)


@pytest.mark.parametrize(
    ("missing", "field", "changes"),
    [
        ("prompt", "prompt", {}),
        ("negative_prompt", "negative", {"negative": "rain"}),
        ("generate_audio", "audio", {"audio": True}),
        ("seed", "seed", {}),
        ("duration", "duration", {}),
        ("aspect_ratio", "aspect_ratio", {}),
        ("resolution", "resolution", {}),
    ],
)
def test_what_is_asked_and_has_no_field_is_named(
    missing: str, field: str, changes: dict[str, Any]
) -> None:
    assert field in [p.field for p in problems(without(missing), **changes)]


def test_all_that_is_wrong_is_named_at_once() -> None:
    found = problems(without("seed", "negative_prompt"), negative="rain", frames=120)
    assert [p.field for p in found] == ["negative", "duration", "seed"]
    assert "one of 4, 6, 8" in str(found[1])
    assert found[1].nearest == 4


def test_the_card_says_what_a_model_goes_without() -> None:
    modest = card(remote={"audio": "optional", "settings": {"without": ["seed", "negative"]}})
    sent = form(without("seed", "negative_prompt"), modest, negative="rain").values
    assert not {"seed", "negative_prompt"} & sent.keys()


def test_sound_that_is_always_made_needs_no_field() -> None:
    loud = card(remote={"audio": "always"})
    assert "generate_audio" not in form(without("generate_audio"), loud, audio=True).values


def test_one_size_needs_no_fields_and_a_picture_gives_the_shape(tmp_path: Path) -> None:
    sizes = VEO.sizes.model_dump() | {"native": [[1280, 720]], "default": [1280, 720]}
    bare = without("aspect_ratio", "resolution")
    assert form(bare, card(sizes=sizes)).values.keys().isdisjoint({"aspect_ratio", "resolution"})
    picture = {"image": tmp_path / "a.png"}
    sent = form(without("aspect_ratio"), task="i2v", inputs=picture)
    assert sent.files == {"image": tmp_path / "a.png"}


@pytest.mark.parametrize(
    ("size", "aspect", "resolution"),
    [
        ((1280, 720), "16:9", "720p"),
        ((1248, 704), "16:9", "720p"),
        ((720, 1280), "9:16", "720p"),
        ((1920, 1088), "16:9", "1080p"),
    ],
)
def test_the_nearest_shape_and_lines_are_taken(
    size: tuple[int, int], aspect: str, resolution: str
) -> None:
    sent = form(veo_fields(), width=size[0], height=size[1]).values
    assert (sent["aspect_ratio"], sent["resolution"]) == (aspect, resolution)


@pytest.mark.parametrize("size", [(1080, 1080), (640, 360)])
def test_a_shape_that_is_far_from_all_is_refused(size: tuple[int, int]) -> None:
    found = problems(veo_fields(), width=size[0], height=size[1])
    assert found[0].field in ("aspect_ratio", "resolution")
    assert found[0].nearest is not None


def test_two_sides_or_one_word_say_the_size_too() -> None:
    sides = {"width": {"type": "integer", "maximum": 1280}, "height": {"type": "integer"}}
    sent = form(veo_fields(**sides)).values
    assert (sent["width"], sent["height"]) == (1280, 720)
    assert "aspect_ratio" not in sent
    word = {"size": {"type": "string", "enum": ["832*480", "1280*720"]}}
    assert form(veo_fields(**word)).values["size"] == "1280*720"
    assert problems(veo_fields(**word), width=720, height=1280)[0].field == "size"


def test_a_seed_that_is_too_large_is_refused_with_the_largest() -> None:
    (problem,) = problems(veo_fields(), seed=2**40)
    assert (problem.field, problem.nearest) == ("seed", 4294967295)


def test_the_card_s_arguments_are_sent_and_checked() -> None:
    pipelines: dict[str, Any] = {"t2v": {"class": "predictions", "arguments": {"style": "calm"}}}
    own = card(pipelines=pipelines)
    styled = veo_fields(style={"type": "string", "enum": ["calm", "wild"]})
    assert form(styled, own).values["style"] == "calm"
    assert problems(veo_fields(), own)[0].field == "style"


def test_what_a_model_needs_and_nobody_gives_is_named() -> None:
    fields = veo_fields() | {"key": Field("key", "string", required=True)}
    (problem,) = problems(fields)
    assert problem.field == "key"
    assert "arguments" in problem.allowed


def test_more_references_than_it_takes_are_refused(tmp_path: Path) -> None:
    model = Catalog.load().get("replicate-veo-3.1-references")
    files = {f"references.{i}": tmp_path / f"{i}.png" for i in (10, 2, 1)}
    assert form(veo_fields(), model, inputs=files).files["reference_images"] == [
        tmp_path / name for name in ("1.png", "2.png", "10.png")
    ]
    files["references.3"] = tmp_path / "3.png"
    assert problems(veo_fields(), model, inputs=files)[0].nearest == 3


def test_steps_and_guidance_go_where_the_card_has_them() -> None:
    steps = {"default": 20, "minimum": 1, "maximum": 50}
    tiers = {"preview": 10, "standard": 20, "premium": 40}
    own = card(steps=steps | tiers, guidance={"default": 6, "minimum": 1, "maximum": 9})
    both = {"num_inference_steps": {"type": "integer"}, "guidance_scale": {"type": "number"}}
    sent = form(veo_fields(**both), own, steps=20, guidance=6.0).values
    assert (sent["num_inference_steps"], sent["guidance_scale"]) == (20, 6.0)
    assert [p.field for p in problems(veo_fields(), own)] == ["steps", "guidance"]


@pytest.mark.parametrize(
    ("word", "ratio"),
    [("16:9", 16 / 9), ("portrait", 9 / 16), ("4x3", 4 / 3), ("adaptive", None), ("1:0", None)],
)
def test_words_for_shapes(word: str, ratio: float | None) -> None:
    assert aspect_of(word) == ratio


@pytest.mark.parametrize(
    ("word", "side"), [("720p", 720), ("768P", 768), (1080, 1080), ("4k", 2160), ("high", None)]
)
def test_words_for_lines(word: Any, side: int | None) -> None:
    assert short_side_of(word) == side


def test_words_for_sizes() -> None:
    assert pixels_of("1280*720") == pixels_of("1280 x 720") == (1280, 720)
    assert pixels_of("720p") is None


def test_the_fake_s_schemas_are_not_changed_by_reading_them() -> None:
    document = models()["google/veo-3.1"]
    before = copy.deepcopy(document)
    fields_of(document, "m")
    assert document == before


CARDS = [card for card in Catalog.load() if card.backend == "replicate"]


@pytest.mark.parametrize("model", CARDS, ids=lambda c: c.id)
def test_whatever_a_card_allows_fits_into_the_model_s_form(
    model: ModelCard, tmp_path: Path
) -> None:
    assert model.source.service is not None
    document = models()[model.source.service]
    fields = fields_of(document, model.source.service)
    for task, pipeline in model.pipelines.items():
        names = {n if n != "references" else "references.0" for n in pipeline.inputs}
        inputs = {name: tmp_path / f"{name}.png" for name in names}
        for width, height in model.sizes.native:
            rule = model.frames
            for frames in range(rule.minimum, rule.maximum + 1, rule.multiple):
                asked = order_of(
                    model,
                    task,
                    inputs=inputs,
                    width=width,
                    height=height,
                    frames=frames,
                    negative="rain" if model.negative else "",
                    audio=model.remote is not None and model.remote.audio == "optional",
                )
                found = fill(asked, model, fields)
                files = {
                    name: ["https://x/"] if isinstance(file, list) else "https://x/"
                    for name, file in found.files.items()
                }
                assert not mistakes(document, found.values | files)
