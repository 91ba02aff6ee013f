from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, InvalidRequest, ModelNotFound
from kinoloom.planner.estimate import Measurement
from kinoloom.planner.inputs import ImageInput, Inputs, VideoInput
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Adjustment, Plan
from kinoloom.planner.resolve import draw_seed, plan
from kinoloom.request import VideoRequest

SPARK = Catalog.load().get("spark")
PROMPT = "a red ball rolling to the right on green grass"


def larger(**changes: Any) -> ModelCard:
    """A model with several sizes and rates, as the next families have."""
    data = SPARK.model_dump(mode="json", exclude_none=True)
    data |= {
        "id": "larger",
        "title": "Larger",
        "sizes": {
            "multiple_of": 16,
            "minimum": 256,
            "maximum": 1280,
            "native": [[832, 480], [480, 832], [640, 640]],
            "default": [832, 480],
        },
        "fps": {"default": 16, "minimum": 8, "maximum": 30},
    }
    data.pop("vocabulary")
    return ModelCard.model_validate(data | changes)


def planned(*cards: ModelCard, **values: Any) -> Plan:
    options = {k: values.pop(k) for k in ("measurements", "inputs", "today") if k in values}
    chosen = cards or (SPARK,)
    return plan(
        VideoRequest.checked(**({"prompt": PROMPT} | values)),
        catalog=Catalog({c.id: c for c in chosen}),
        settings=Settings(home=Path("home"), default_model=chosen[0].id),
        machine=Machine("cpu"),
        rng=lambda: 4711,
        **options,
    )


def adjusted(result: Plan) -> dict[str, Adjustment]:
    return {a.field: a for a in result.adjustments}


def image_of(width: int, height: int) -> ImageInput:
    return ImageInput(path=Path("a.png"), width=width, height=height, digest="sha256:1")


def video_of(frames: int, fps: float = 12, width: int = 256, height: int = 160) -> Inputs:
    return Inputs(
        video=VideoInput(
            path=Path("a.mp4"), width=width, height=height, frames=frames, fps=fps, digest="d"
        )
    )


def test_a_prompt_alone_becomes_a_whole_plan() -> None:
    result = planned()
    assert (result.task, result.model, result.backend) == ("t2v", "spark", "local")
    assert result.size == (256, 160)
    assert (result.frames, result.fps, result.context_frames) == (25, 12, 0)
    assert result.seconds_of_video == pytest.approx(25 / 12)
    assert result.guidance == 3.0
    assert SPARK.steps.preview <= result.steps <= SPARK.steps.premium
    assert result.seed == 4711
    assert result.estimate.source == "card"
    assert result.adjustments == ()
    assert result.warnings == ()
    for word in ("spark", "local", "256x160", "25 frames", "steps", "seed 4711"):
        assert any(word in reason for reason in result.reasons)


def test_a_plan_survives_json() -> None:
    result = planned(size="720p", seed=3, negative="a blue star")
    data = json.loads(json.dumps(result.model_dump(mode="json"), allow_nan=False))
    assert Plan.model_validate(data) == result


def test_everything_that_is_changed_is_said() -> None:
    result = planned(size="720p", frames=100, fps=24, steps=100, guidance=20)
    used = {name: a.used for name, a in adjusted(result).items()}
    assert used == {"size": "256x160", "frames": 49, "fps": 12, "steps": 40, "guidance": 8}
    assert (result.size, result.frames, result.fps) == ((256, 160), 49, 12)
    assert (result.steps, result.guidance) == (40, 8)
    assert all(a.why for a in result.adjustments)
    assert adjusted(result)["frames"].asked == 100
    assert "8n+1 from 1 to 49" in str(adjusted(result)["frames"])


def test_what_fits_is_not_changed() -> None:
    result = planned(size="256x160", frames=33, fps=12, steps=25, guidance=4, seed=9)
    assert result.adjustments == ()
    assert (result.frames, result.steps, result.guidance, result.seed) == (33, 25, 4, 9)
    assert not any("drawn" in reason for reason in result.reasons)


def test_a_duration_becomes_frames() -> None:
    result = planned(duration=2.09)
    assert result.frames == 25
    assert result.adjustments == ()
    result = planned(duration=3)
    assert result.frames == 33
    assert adjusted(result)["duration"].used == 2.75
    assert planned(duration=3600).frames == 49


def test_a_still_is_one_frame() -> None:
    assert planned(frames=1).frames == 1
    assert planned(frames=1).adjustments == ()


@pytest.mark.parametrize(("tier", "steps"), [("preview", 14), ("standard", 20), ("premium", 30)])
def test_a_tier_sets_the_steps(tier: str, steps: int) -> None:
    assert planned(tier=tier).steps == steps
    assert planned(tier=tier, steps=0).steps == planned(tier="auto").steps


def test_the_key_is_of_what_runs_not_of_how_it_was_asked() -> None:
    key = planned(seed=1, frames=25).key
    assert planned(seed=1, frames=24).key == key
    assert planned(seed=1, size="720p", format="gif", output="x.gif").key == key
    assert planned(seed=2).key != key
    assert planned(seed=1, tier="preview").key != planned(seed=1, tier="premium").key
    steps = planned(seed=1, tier="auto").steps
    assert planned(seed=1, steps=steps).key == key


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelNotFound) as caught:
        planned(model="sprak")
    assert "spark" in caught.value.hints[0]


def test_a_model_that_cannot_do_it_names_those_that_can() -> None:
    words_only = larger(id="words", pipelines={"t2v": {"class": "X"}}, extend=None)
    with pytest.raises(InvalidRequest, match="image to video") as caught:
        planned(words_only, SPARK, larger(), image="a.png", inputs=Inputs(image=image_of(9, 9)))
    (problem,) = caught.value.problems
    assert problem.field == "model"
    assert "larger, spark" in problem.allowed
    assert problem.nearest == "larger"


def test_an_unknown_backend_names_the_one_there_is() -> None:
    with pytest.raises(InvalidRequest) as caught:
        planned(backend="comfyui")
    (problem,) = caught.value.problems
    assert (problem.field, problem.nearest) == ("backend", "local")
    assert planned(backend="local").backend == "local"


def test_a_wrong_task_is_told_before_any_file_is_read() -> None:
    card = larger(pipelines={"t2v": {"class": "X"}}, extend=None)
    with pytest.raises(InvalidRequest):
        planned(card, image="does/not/exist.png")


def test_a_missing_picture_is_told_by_the_plan(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia):
        planned(image=tmp_path / "none.png")


def test_a_picture_of_the_clips_shape_is_taken_as_it_is(picture: Path) -> None:
    result = planned(image=picture)
    assert result.task == "i2v"
    assert result.adjustments == ()
    assert result.inputs.image is not None
    assert result.inputs.image.digest.startswith("sha256:")


def test_a_picture_of_another_shape_is_cut_and_that_is_said(picture: Path, square: Path) -> None:
    result = planned(image=picture, last_image=square)
    assert result.task == "flf2v"
    assert set(adjusted(result)) == {"last_image"}
    change = adjusted(result)["last_image"]
    assert (change.asked, change.used) == ("300x300", "256x160")
    assert "38% cut off top and bottom" in change.why


def test_a_wide_picture_loses_its_sides() -> None:
    result = planned(image="a.png", inputs=Inputs(image=image_of(1000, 160)))
    assert "left and right" in adjusted(result)["image"].why


def test_the_size_follows_the_picture_where_there_is_a_choice() -> None:
    tall = planned(larger(), image="a.png", inputs=Inputs(image=image_of(1080, 1920)))
    assert tall.size == (480, 832)
    assert any("shape" in reason for reason in tall.reasons)
    asked = planned(
        larger(), image="a.png", size="640x640", inputs=Inputs(image=image_of(1080, 1920))
    )
    assert asked.size == (640, 640)
    assert set(adjusted(asked)) == {"image"}


def test_the_pictures_content_is_part_of_the_key(picture: Path, square: Path) -> None:
    keys = {planned(image=p, seed=1).key for p in (picture, square)} | {planned(seed=1).key}
    assert len(keys) == 3


@pytest.mark.parametrize("names", [["image"], ["image", "last_image"]])
def test_a_picture_that_moves_needs_more_than_one_frame(names: list[str]) -> None:
    found = Inputs.model_validate({name: image_of(256, 160) for name in names})
    result = planned(frames=1, **dict.fromkeys(names, "a.png"), inputs=found)
    assert result.frames == 9
    assert "at least 9" in adjusted(result)["frames"].why


def test_a_video_is_continued_from_its_last_frames(video: Path) -> None:
    result = planned(video=video)
    assert result.task == "extend"
    assert (result.frames, result.context_frames, result.new_frames) == (25, 9, 16)
    assert any("9 of the given video" in r and "16 new" in r for r in result.reasons)
    assert result.adjustments == ()
    assert result.warnings == ()


def test_a_continuation_adds_something() -> None:
    result = planned(video="a.mp4", frames=9, inputs=video_of(20))
    assert result.frames == 17
    assert "at least 17" in adjusted(result)["frames"].why


def test_a_short_video_gives_what_it_has() -> None:
    result = planned(video="a.mp4", inputs=video_of(5))
    assert (result.context_frames, result.frames) == (1, 25)
    assert any("only 5 frames" in w for w in result.warnings)


def test_a_video_too_short_for_the_model_is_refused() -> None:
    data = SPARK.model_dump(mode="json", exclude_none=True)
    data["frames"]["minimum"] = 9
    with pytest.raises(InvalidMedia, match="too short") as caught:
        planned(ModelCard.model_validate(data), video="a.mp4", inputs=video_of(5))
    assert caught.value.hints


def test_a_videos_rate_is_kept_where_the_model_can() -> None:
    assert planned(larger(), video="a.mp4", inputs=video_of(20, fps=25)).fps == 25
    result = planned(larger(), video="a.mp4", inputs=video_of(20, fps=60))
    assert result.fps == 30
    assert any("50% of its speed" in w for w in result.warnings)
    assert planned(larger(), video="a.mp4", fps=20, inputs=video_of(20, fps=25)).fps == 20


def test_words_that_the_model_does_not_know_are_a_warning() -> None:
    (warning,) = planned(prompt="a samurai").warnings
    assert "samurai" in warning
    assert planned(larger(), prompt="a samurai").warnings == ()


def test_a_negative_prompt_goes_where_it_works() -> None:
    assert planned(negative="a blue star").negative == "a blue star"
    assert planned().negative == ""
    off = planned(negative="a blue star", guidance=1)
    assert off.negative == ""
    assert "guidance" in adjusted(off)["negative"].why
    none = planned(larger(negative=False), negative="a blue star")
    assert none.negative == ""
    assert adjusted(none)["negative"].used is None


def test_retirement_and_territory_are_said_in_time() -> None:
    card = larger(
        retirement="2027-01-01",
        licence={"id": "L", "url": "https://l.example/", "territory": "not in the EU"},
    )

    def warnings(day: str) -> list[str]:
        result = planned(card, today=datetime.date.fromisoformat(day))
        return [w for w in result.warnings if "retired" in w]

    assert warnings("2026-06-01") == []
    assert "will be retired" in warnings("2026-12-01")[0]
    assert "was retired" in warnings("2027-01-01")[0]
    assert any("not in the EU" in w for w in planned(card).warnings)


def test_measurements_replace_the_card() -> None:
    measured = Measurement(
        model="spark",
        device="cpu",
        width=256,
        height=160,
        frames=25,
        guidance=3.0,
        seconds_per_step=0.1,
        overhead=0.5,
    )
    result = planned(steps=20, measurements=[measured])
    assert result.estimate.source == "measured"
    assert result.estimate.seconds == pytest.approx(2.5)


def test_the_memory_of_the_card_is_added_up() -> None:
    card = larger(memory={"components": {"vae": 10, "transformer": 32}})
    assert planned(card).weights_bytes == 42
    assert planned().weights_bytes is None or planned().weights_bytes > 0


def test_a_drawn_seed_is_short_and_another_each_time() -> None:
    seeds = {draw_seed() for _ in range(20)}
    assert len(seeds) > 15
    assert all(0 <= s < 2**31 for s in seeds)


def test_planning_from_words_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from kinoloom.catalog.loader import Catalog\n"
        "from kinoloom.planner.outlook import Machine\n"
        "from kinoloom.planner.resolve import plan\n"
        "from kinoloom.request import VideoRequest\n"
        "from kinoloom.config import Settings\n"
        "plan(VideoRequest(prompt='x'), catalog=Catalog.load(), settings=Settings(home='none'),"
        " machine=Machine('cpu'))\n"
        "print(sorted({'torch', 'cv2', 'av', 'PIL', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def on_disk(folder: Path) -> ModelCard:
    """A model in a folder, whole, of one layer."""
    index = {
        "_class_name": "LTXConditionPipeline",
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    for name, content in {
        "model_index.json": index,
        "transformer/config.json": {},
        "scheduler/scheduler_config.json": {},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    weights = {"layer.weight": np.zeros((4, 4), np.float32)}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return larger(source={"path": str(folder)})


def test_a_lora_is_not_held_against_a_model_that_is_not_whole(tmp_path: Path) -> None:
    card = on_disk(tmp_path / "model")
    file = tmp_path / "other.safetensors"
    pair = {"A": np.zeros((2, 4), np.float32), "B": np.zeros((4, 2), np.float32)}
    save_file({f"transformer.missing.lora_{k}.weight": v for k, v in pair.items()}, file)
    lora = [{"name": str(file)}]
    with pytest.raises(InvalidRequest, match="another model"):
        planned(card, loras=lora)
    (tmp_path / "model" / "scheduler" / "scheduler_config.json").unlink()
    assert planned(card, loras=lora).loras[0].path == file  # the render says what is missing


def test_a_download_that_is_not_finished_is_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    folder = tmp_path / "hub" / "models--a--b" / "snapshots" / commit
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    on_disk(folder)
    card = larger(source={"repo": "a/b"})
    whole = planned(card)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert planned(card).key == whole.key
