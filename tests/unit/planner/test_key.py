from __future__ import annotations

from pathlib import Path
from typing import Any

from kinoloom.backends.base import Speed
from kinoloom.catalog.card import Schedule
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.source import Source
from kinoloom.catalog.speed import Scheduler, StepCache
from kinoloom.planner.inputs import ImageInput, Inputs, KeyframeInput, VideoInput
from kinoloom.planner.key import recipe_key, seeded_key
from kinoloom.planner.loras import PlannedLora
from kinoloom.weights.places import Located

SPARK = Catalog.load().get("spark")
CACHE = StepCache(kind="first_block", settings={"threshold": 0.1})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def image(name: str, digest: str) -> ImageInput:
    return ImageInput(path=Path(name), width=1, height=1, digest=digest)


def picture(name: str, digest: str) -> Inputs:
    return Inputs(image=image(name, digest))


def film(digest: str) -> VideoInput:
    return VideoInput(path=Path("v"), width=1, height=1, frames=9, fps=12, digest=digest)


def lora(**changes: Any) -> PlannedLora:
    values = {"name": "a", "path": Path("a"), "digest": "sha256:1", "weight": 1.0}
    return PlannedLora(**(values | {"component": "transformer"} | changes))


def recipe(**changes: Any) -> str:
    values: dict[str, Any] = {
        "card": SPARK,
        "located": None,
        "task": "t2v",
        "prompt": "a red ball",
        "negative": "",
        "width": 256,
        "height": 160,
        "frames": 25,
        "context_frames": 0,
        "fps": 12.0,
        "steps": 20,
        "guidance": 3.0,
        "shift": None,
        "timesteps": None,
        "scheduler": None,
        "inputs": Inputs(),
        "loras": (),
        "speed": Speed(),
        "fp8": False,
        "tiling": False,
    }
    values |= changes
    return recipe_key(values.pop("card"), values.pop("located"), **values)


def test_the_same_again_has_the_same_key() -> None:
    assert recipe() == recipe()
    assert len(recipe()) == len(seeded_key(recipe(), 7)) == 64
    assert recipe(fps=12) == recipe(fps=12.0), "a whole number is no other rate"


def test_whatever_decides_the_frames_changes_the_key() -> None:
    changes: list[dict[str, Any]] = [
        {"task": "i2v"},
        {"prompt": "a blue ball"},
        {"negative": "blur"},
        {"width": 160, "height": 256},
        {"frames": 33},
        {"context_frames": 9},
        {"fps": 24.0},
        {"steps": 21},
        {"guidance": 3.5},
        {"shift": 3.0},
        {"timesteps": (1000, 500)},
        {"scheduler": Scheduler.model_validate({"class": "LCMScheduler"})},
        {
            "scheduler": Scheduler.model_validate(
                {"class": "LCMScheduler", "settings": {"beta_schedule": "linear"}}
            )
        },
        {"fp8": True},
        {"tiling": True},
        {"speed": Speed(cache=CACHE)},
        {"speed": Speed(attention="sage")},
        {"speed": Speed(compile=True)},
        {"loras": (lora(),)},
        {"loras": (lora(digest="sha256:2"),)},
        {"loras": (lora(weight=0.5),)},
        {"loras": (lora(component="transformer_2"),)},
        {"loras": (lora(), lora(digest="sha256:2"))},
        {"inputs": picture("a.png", "sha256:1")},
        {"inputs": picture("a.png", "sha256:2")},
        {"inputs": Inputs(video=film("sha256:1"))},
        {"inputs": Inputs(video=film("sha256:1"), mask=image("m", "sha256:2"))},
        {"inputs": Inputs(video=film("sha256:1"), mask=film("sha256:3"))},
        {"inputs": Inputs(references=(image("r", "sha256:1"),))},
        {"inputs": Inputs(keyframes=(KeyframeInput(index=0, image=image("k", "sha256:1")),))},
        {"inputs": Inputs(keyframes=(KeyframeInput(index=8, image=image("k", "sha256:1")),))},
        {"card": SPARK.model_copy(update={"id": "spark2"})},
        {"card": SPARK.model_copy(update={"adapter": "wan"})},
        {"card": SPARK.model_copy(update={"schedule": Schedule(kind="shifted", shift=3)})},
        {"card": SPARK.model_copy(update={"source": Source(repo="a/b")})},
        {"card": SPARK.model_copy(update={"source": Source(repo="a/b", revision="1")})},
        {
            "card": SPARK.model_copy(update={"source": Source(repo="a/b", revision="1")}),
            "located": Located(folder=Path("models--a--b", "snapshots", COMMIT)),
        },
    ]
    keys = [recipe(), *(recipe(**change) for change in changes)]
    assert len(set(keys)) == len(keys)


def test_the_seed_is_what_tells_the_takes_of_a_recipe_apart() -> None:
    keys = {seeded_key(recipe(), 7), seeded_key(recipe(), 8), seeded_key(recipe(steps=21), 7)}
    assert len(keys | {recipe()}) == 4


def test_the_order_of_what_is_laid_on_top_of_each_other_counts() -> None:
    one, two = lora(digest="sha256:1"), lora(digest="sha256:2")
    assert recipe(loras=(one, two)) != recipe(loras=(two, one))
    first, second = image("a", "sha256:1"), image("b", "sha256:2")
    forward = recipe(inputs=Inputs(references=(first, second)))
    assert forward != recipe(inputs=Inputs(references=(second, first)))


def test_the_place_of_a_picture_is_part_of_the_key() -> None:
    one, two = image("a", "sha256:1"), image("b", "sha256:2")
    forward = recipe(task="flf2v", inputs=Inputs(image=one, last_image=two))
    assert forward != recipe(task="flf2v", inputs=Inputs(image=two, last_image=one))


def test_what_only_describes_does_not_change_the_key() -> None:
    described = SPARK.model_copy(
        update={"title": "X", "notes": ["y"], "timing": None, "vocabulary": None}
    )
    assert recipe(card=described) == recipe()
    same = recipe(inputs=picture("a.png", "sha256:1"))
    assert recipe(inputs=picture("elsewhere/b.png", "sha256:1")) == same
    renamed = lora(name="other", path=Path("elsewhere"))
    assert recipe(loras=(renamed,)) == recipe(loras=(lora(),))
