from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, InvalidRequest
from kinoloom.planner.inputs import ImageInput, Inputs, KeyframeInput, VideoInput
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Adjustment, Plan
from kinoloom.planner.resolve import plan
from kinoloom.request import VideoRequest

SPARK = Catalog.load().get("spark")


def able(**changes: Any) -> ModelCard:
    """A model that takes everything there is."""
    data = SPARK.model_dump(mode="json", by_alias=True, exclude_none=True)
    wants = {
        "t2v": [],
        "i2v": ["image", "references", "keyframes"],
        "extend": ["video", "keyframes"],
        "inpaint": ["video", "mask", "references"],
        "r2v": ["references"],
    }
    data |= {
        "id": "able",
        "pipelines": {
            task: {"class": "X", "inputs": dict.fromkeys(names, "x")}
            for task, names in wants.items()
        },
    }
    return ModelCard.model_validate(data | changes)


def planned(*cards: ModelCard, found: Inputs, **values: Any) -> Plan:
    chosen = cards or (able(),)
    return plan(
        VideoRequest.checked(**({"prompt": "a red ball", "seed": 1} | values)),
        catalog=Catalog({c.id: c for c in chosen}),
        settings=Settings(home=Path("home"), default_model=chosen[0].id),
        machine=Machine("cpu"),
        inputs=found,
    )


def picture(width: int = 256, height: int = 160) -> ImageInput:
    return ImageInput(path=Path("a.png"), width=width, height=height, digest="sha256:1")


def film(frames: int, width: int = 256, height: int = 160) -> VideoInput:
    return VideoInput(
        path=Path("a.mp4"), width=width, height=height, frames=frames, fps=12, digest="d"
    )


def inpainted(given: int, mask: ImageInput | VideoInput | None = None, **values: Any) -> Plan:
    found = Inputs(video=film(given), mask=mask or picture())
    return planned(found=found, video="a.mp4", mask="m.png", **values)


def adjusted(result: Plan) -> dict[str, Adjustment]:
    return {a.field: a for a in result.adjustments}


@pytest.mark.parametrize(("given", "frames"), [(25, 25), (17, 17), (20, 17), (24, 17), (49, 49)])
def test_the_inpainted_clip_is_as_long_as_the_video(given: int, frames: int) -> None:
    result = inpainted(given)
    assert (result.task, result.frames, result.context_frames) == ("inpaint", frames, 0)
    if frames == given:
        assert result.adjustments == ()
        assert any("those of the given video" in reason for reason in result.reasons)
    else:
        change = adjusted(result)["frames"]
        assert (change.asked, change.used) == (given, frames)
        assert "the given video's" in change.why


def test_of_a_long_video_only_what_the_model_makes_is_inpainted() -> None:
    assert inpainted(500).frames == 49
    assert inpainted(500, frames=17).frames == 17
    assert inpainted(500, duration=1.4).frames == 17


def test_a_video_that_is_shorter_than_the_clip_is_refused() -> None:
    with pytest.raises(InvalidMedia, match="too short") as caught:
        inpainted(20, frames=25)
    assert "has 25 frames, the video has 20" in caught.value.cause
    assert any("--frames" in hint for hint in caught.value.hints)


def test_a_mask_that_ends_before_the_clip_is_refused() -> None:
    with pytest.raises(InvalidMedia, match="too short") as caught:
        inpainted(25, mask=film(24))
    assert "the mask has 24" in caught.value.cause
    assert inpainted(25, mask=film(25)).frames == 25
    assert inpainted(25, mask=film(24), frames=17).frames == 17


def test_a_keyframe_lies_within_the_clip() -> None:
    def keyed(*indices: int, **values: Any) -> Plan:
        frames = tuple(KeyframeInput(index=i, image=picture()) for i in indices)
        pairs = [(i, "a.png") for i in indices]
        return planned(found=Inputs(keyframes=frames), keyframes=pairs, **values)

    assert keyed(0, 24).frames == 25
    with pytest.raises(InvalidRequest) as caught:
        keyed(0, 25, 30)
    found = caught.value.problems
    assert [(p.field, p.value, p.nearest) for p in found] == [
        ("keyframes", 25, 24),
        ("keyframes", 30, 24),
    ]
    assert keyed(30, frames=33).frames == 33


def test_what_a_model_does_not_take_is_refused_with_one_that_does() -> None:
    frames = Inputs(keyframes=(KeyframeInput(index=0, image=picture()),))
    with pytest.raises(InvalidRequest) as caught:
        planned(SPARK, able(), found=frames, keyframes={0: "a.png"})
    (problem,) = caught.value.problems
    assert problem.field == "keyframes"
    assert problem.allowed.endswith("a model that takes keyframes: able")
    look = Inputs(image=picture(), references=(picture(),))
    with pytest.raises(InvalidRequest) as caught:
        planned(SPARK, found=look, image="a.png", references=["a.png"])
    (problem,) = caught.value.problems
    assert problem.field == "references"
    assert "none with spark" in problem.allowed
    for task, values in {
        "inpaint": {"video": "a.mp4", "mask": "m.png"},
        "r2v": {"references": ["r.png"]},
    }.items():
        with pytest.raises(InvalidRequest) as caught:
            planned(SPARK, able(), found=Inputs(), **values)
        (problem,) = caught.value.problems
        assert (problem.field, problem.nearest) == ("model", "able"), task


def test_every_picture_is_cut_to_the_clip_but_a_reference() -> None:
    found = Inputs(
        video=film(25), mask=picture(300, 300), references=(picture(300, 300), picture())
    )
    result = planned(found=found, video="a", mask="b", references=["c", "d"])
    assert set(adjusted(result)) == {"mask"}
    keyed = Inputs(
        keyframes=tuple(
            KeyframeInput(index=i, image=p) for i, p in ((0, picture()), (8, picture(300, 300)))
        )
    )
    assert set(adjusted(planned(found=keyed, keyframes=[(0, "a"), (8, "b")]))) == {"keyframes.8"}


def test_the_size_follows_the_first_keyframe_where_there_is_a_choice() -> None:
    card = able(
        sizes={
            "multiple_of": 16,
            "minimum": 256,
            "maximum": 1280,
            "native": [[832, 480], [480, 832]],
            "default": [832, 480],
        }
    )
    tall = Inputs(keyframes=(KeyframeInput(index=0, image=picture(1080, 1920)),))
    assert planned(card, found=tall, keyframes={0: "a"}).size == (480, 832)
    look = Inputs(references=(picture(1080, 1920),))
    assert planned(card, found=look, references=["a"]).size == (832, 480)
