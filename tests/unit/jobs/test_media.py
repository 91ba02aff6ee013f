from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinoloom.catalog.card import ModelCard, Pipeline
from kinoloom.jobs.media import keep_inputs, read_inputs, with_inputs
from kinoloom.media.writer import write_video
from kinoloom.planner.inputs import file_digest
from kinoloom.planner.plan import Plan
from kinoloom.store.store import Store

MakePlan = Callable[..., Plan]


@pytest.fixture
def able(tiny_card: ModelCard) -> ModelCard:
    """A card that takes everything there is; nothing is rendered with it."""
    wants: dict[str, tuple[str, ...]] = {
        "t2v": (),
        "i2v": ("image", "references", "keyframes"),
        "extend": ("video", "keyframes"),
        "inpaint": ("video", "mask", "references"),
        "r2v": ("references",),
    }
    pipelines = {
        task: Pipeline.model_validate({"class": "X", "inputs": dict.fromkeys(names, "x")})
        for task, names in wants.items()
    }
    return tiny_card.model_copy(update={"pipelines": pipelines})


def picture(file: Path, size: tuple[int, int] = (64, 64), grey: int = 0) -> Path:
    Image.new("RGB", size, (grey, grey, grey)).save(file)
    return file


def film(place: Path, greys: list[int], size: tuple[int, int] = (64, 64)) -> Path:
    """A folder of frames, each of one grey, so that nothing is lost by a codec."""
    frames = np.stack([np.full((size[1], size[0], 3), g, np.uint8) for g in greys])
    write_video(place, frames, 12, format="png")
    return place


def halved(file: Path, left: int, right: int) -> Path:
    pixels = np.full((64, 64, 3), left, np.uint8)
    pixels[:, 32:] = right
    Image.fromarray(pixels).save(file)
    return file


def test_words_alone_need_no_media(make_plan: MakePlan) -> None:
    found = read_inputs(make_plan())
    assert (found.image, found.last_image, found.video, found.mask) == (None,) * 4
    assert (found.references, found.keyframes) == ((), ())


def test_a_video_is_inpainted_from_its_first_frame_on(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path
) -> None:
    video = film(tmp_path / "video", [10 * i for i in range(20)], size=(128, 128))
    mask = picture(tmp_path / "mask.png", grey=255)
    plan = make_plan(card=able, video=video, mask=mask, frames=9)
    assert (plan.task, plan.frames, plan.context_frames) == ("inpaint", 9, 0)
    found = read_inputs(plan)
    assert found.video is not None
    assert found.video.shape == (9, 64, 64, 3)
    assert found.video[:, 0, 0, 0].tolist() == [10 * i for i in range(9)]


def test_one_mask_holds_for_every_frame(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path
) -> None:
    video = film(tmp_path / "video", [0] * 9)
    for left, right in ((0, 255), (127, 128), (250, 3)):
        mask = halved(tmp_path / "mask.png", left, right)
        found = read_inputs(make_plan(card=able, video=video, mask=mask)).mask
        assert found is not None
        assert found.dtype == np.uint8
        assert found.shape == (9, 64, 64)
        white = (np.asarray([left, right]) >= 128) * 255
        assert (found[..., :32] == white[0]).all()
        assert (found[..., 32:] == white[1]).all()


def test_a_mask_may_move(make_plan: MakePlan, able: ModelCard, tmp_path: Path) -> None:
    video = film(tmp_path / "video", [0] * 9)
    mask = film(tmp_path / "mask", [0, 255, 0, 200, 100, 255, 0, 0, 255, 255, 255])
    found = read_inputs(make_plan(card=able, video=video, mask=mask)).mask
    assert found is not None
    assert found.shape == (9, 64, 64)
    assert (found[:, 5, 5] // 255).tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1]
    assert set(np.unique(found)) == {0, 255}


def test_a_mask_of_another_size_covers_the_clip(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path
) -> None:
    video = film(tmp_path / "video", [0] * 9)
    mask = picture(tmp_path / "mask.png", size=(300, 100), grey=255)
    found = read_inputs(make_plan(card=able, video=video, mask=mask)).mask
    assert found is not None
    assert (found == 255).all()
    assert found.shape == (9, 64, 64)


def test_references_keep_their_own_size_and_order(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path
) -> None:
    files = [
        picture(tmp_path / "a.png", (300, 100), 10),
        picture(tmp_path / "b.png", (40, 80), 20),
    ]
    plan = make_plan(card=able, references=files)
    assert plan.task == "r2v"
    found = read_inputs(plan).references
    assert [f.shape for f in found] == [(100, 300, 3), (80, 40, 3)]
    assert [int(f[0, 0, 0]) for f in found] == [10, 20]


def test_keyframes_are_fitted_to_the_clip_and_keep_their_frames(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path
) -> None:
    first = picture(tmp_path / "a.png", (300, 100), 10)
    last = picture(tmp_path / "b.png", (64, 64), 20)
    plan = make_plan(card=able, keyframes={8: last, 0: first}, prompt="", size=(64, 64))
    assert plan.task == "i2v"
    found = read_inputs(plan).keyframes
    assert [k.index for k in found] == [0, 8]
    assert [int(k.image[0, 0, 0]) for k in found] == [10, 20]
    assert {k.image.shape for k in found} == {(64, 64, 3)}


def test_every_file_is_kept_and_a_folder_stays_where_it_is(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path, store: Store
) -> None:
    video = film(tmp_path / "video", [0] * 9)
    mask = picture(tmp_path / "mask.png", grey=255)
    look = picture(tmp_path / "look.png", grey=3)
    plan = make_plan(card=able, video=video, mask=mask, references=[look])
    kept = keep_inputs(plan, store)
    assert kept == {"mask": file_digest(mask), "references.0": file_digest(look)}
    assert store.assets.path(kept["mask"]).read_bytes() == mask.read_bytes()
    frame = make_plan(card=able, prompt="", keyframes={8: look})
    assert keep_inputs(frame, store) == {"keyframes.8": file_digest(look)}


def test_every_given_file_may_lie_elsewhere(
    make_plan: MakePlan, able: ModelCard, tmp_path: Path
) -> None:
    first, second, third = (picture(tmp_path / f"{n}.png", grey=n) for n in (1, 2, 3))
    plan = make_plan(
        card=able, image=first, references=(second, third), keyframes=((4, second), (8, third))
    )
    elsewhere = {name: tmp_path / "moved" / name for name in plan.inputs.files}
    assert len(elsewhere) == 5
    moved = with_inputs(plan, elsewhere)
    assert {name: media.path for name, media in moved.inputs.files.items()} == elsewhere
    assert moved.key == plan.key
    assert with_inputs(moved, {n: m.path for n, m in plan.inputs.files.items()}) == plan
