from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image

from kinoloom.backends.base import Inputs
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.reading import read_cards
from kinoloom.request import Task
from tiny_models import shipped, wan
from tiny_models.drive import Bare, given

pytestmark = pytest.mark.usefixtures("one_thread")

Open = Callable[[str, Task], Bare]
TASKS: list[tuple[str, Task]] = [
    ("wan-2.1-t2v", "t2v"),
    ("wan-2.1-i2v", "i2v"),
    ("wan-2.1-flf2v", "flf2v"),
    ("wan-2.1-vace", "inpaint"),
    ("wan-2.1-vace", "r2v"),
    ("wan-2.2-t2v", "t2v"),
    ("wan-2.2-i2v", "i2v"),
    ("wan-2.2-ti2v", "t2v"),
    ("wan-2.2-ti2v", "i2v"),
]
every_task = pytest.mark.parametrize(("model", "task"), TASKS)


def packaged(file: str) -> tuple[ModelCard, ...]:
    """The cards of a family's packaged file."""
    return tuple(read_cards(Path(str(resources.files("kinoloom.catalog") / "cards" / file))))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """A tiny model's pipeline for a task, loaded once."""
    folder = tmp_path_factory.mktemp("wan")
    wan.cards(folder)
    return cache(lambda model, task: Bare(folder / f"tiny-{model}.yaml", task))


def test_every_packaged_task_has_a_tiny_model() -> None:
    tested = {
        (shipped.card(model).pipelines[task].class_name, task)
        for name, (_, model) in wan.VARIANTS.items()
        for tiny, task in TASKS
        if tiny == name
    }
    offered = {
        (pipeline.class_name, task)
        for file in ("wan-2.1.yaml", "wan-2.2.yaml")
        for card in packaged(file)
        for task, pipeline in card.pipelines.items()
    }
    assert tested == offered


@every_task
def test_words_and_media_change_the_frames(bare: Open, model: str, task: Task) -> None:
    tiny = bare(model, task)
    frames, _ = tiny.first
    assert frames.shape == (5, 32, 32, 3)
    assert frames.std() > 0.05
    other = tiny.frames(given(task, 1), tiny.words(prompt="blue squares at night"))
    assert np.abs(frames - other).mean() > 0.002
    if task != "t2v":
        assert np.abs(frames - tiny.frames(given(task, 2))).mean() > 0.005


@every_task
def test_embeddings_give_what_the_prompt_gives(bare: Open, model: str, task: Task) -> None:
    tiny = bare(model, task)
    words = {"prompt": tiny.take.prompt, "negative_prompt": tiny.take.negative}
    assert np.array_equal(tiny.first[0], tiny.frames(given(task, 1), words))


@every_task
def test_latents_are_what_the_vae_decodes(bare: Open, model: str, task: Task) -> None:
    tiny = bare(model, task)
    frames, last = tiny.first
    raw = tiny.family.latents(tiny.pipe, tiny.take, last)
    with torch.no_grad():
        decoded = tiny.pipe.vae.decode(raw[None]).sample[0]
    pixels = (decoded.permute(1, 2, 3, 0).numpy() / 2 + 0.5).clip(0, 1)
    assert pixels.shape == frames.shape
    if (model, task) != ("wan-2.2-ti2v", "i2v"):  # its picture is put in after the last step
        assert np.allclose(pixels, frames, atol=1e-4)


def test_without_guidance_the_negative_prompt_is_not_encoded(bare: Open) -> None:
    tiny = bare("wan-2.1-t2v", "t2v")
    assert set(tiny.words()) == {"prompt_embeds", "negative_prompt_embeds"}
    assert set(tiny.words(guidance=1.0)) == {"prompt_embeds"}
    frames = tiny.frames(Inputs(), tiny.words(guidance=1.0), guidance=1.0)
    assert np.abs(frames - tiny.first[0]).mean() > 0.002


def test_the_number_of_tokens_belongs_to_the_embeddings(bare: Open) -> None:
    tiny = bare("wan-2.1-t2v", "t2v")
    assert tiny.words()["prompt_embeds"].shape[1] == 512
    assert tiny.family.encode_key(tiny.pipe, tiny.take, {}) == {"max_sequence_length": 512}
    fixed = {"max_sequence_length": 64, "guidance_scale_2": 3.0}
    assert tiny.family.encode_key(tiny.pipe, tiny.take, fixed) == {"max_sequence_length": 64}
    with torch.no_grad():
        words = tiny.family.encode(tiny.pipe, tiny.take, fixed)
    assert words["prompt_embeds"].shape[1] == 64


def test_vace_is_given_masks_and_references_as_pictures(bare: Open) -> None:
    tiny = bare("wan-2.1-vace", "inpaint")
    found = given("inpaint", 1)
    reference = np.full((40, 24, 3), 90, np.uint8)
    inputs = Inputs(video=found.video, mask=found.mask, references=(reference,))
    media = tiny.family.media(tiny.pipe, tiny.take, inputs)
    assert set(media) == {"video", "mask", "reference_images"}
    mask = media["mask"][0]
    assert isinstance(mask, Image.Image)
    assert mask.mode == "RGB"
    assert mask.getpixel((0, 0)) == (0, 0, 0)
    assert mask.getpixel((31, 0)) == (255, 255, 255)
    assert media["reference_images"][0].size == (24, 40)


def test_the_mask_decides_what_is_made_anew(bare: Open) -> None:
    tiny = bare("wan-2.1-vace", "inpaint")
    found = given("inpaint", 1)
    assert found.mask is not None
    frames, _ = tiny.first
    inverse = tiny.frames(Inputs(video=found.video, mask=255 - found.mask))
    assert np.abs(frames - inverse).mean() > 0.005


def test_both_experts_make_steps(bare: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = bare("wan-2.2-t2v", "t2v")
    calls: list[str] = []
    hooks = [
        getattr(tiny.pipe, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for name in ("transformer", "transformer_2")
    ]
    frames = tiny.frames(Inputs())
    for hook in hooks:
        hook.remove()
    # Each step is one pass with the prompt and one with the negative one.
    assert calls == ["transformer"] * 2 + ["transformer_2"] * 2
    monkeypatch.delitem(tiny.recipe.arguments, "guidance_scale_2")
    assert not np.array_equal(frames, tiny.frames(Inputs()))


@pytest.mark.parametrize("model", ["wan-2.1-t2v-14b", "wan-2.2-i2v-a14b"])
def test_few_steps_are_the_plain_ones_of_the_distillation(model: str) -> None:
    preset = shipped.card(model).presets["lightx2v-4"]
    assert preset.scheduler is not None
    solver = UniPCMultistepScheduler.from_config(
        wan.scheduler(3.0).config, flow_shift=preset.shift, **preset.scheduler.settings
    )
    solver.set_timesteps(preset.steps)
    # It was distilled for t = 1, 0.75, 0.5 and 0.25, shifted by 5.
    expected = [5 * t / (1 + 4 * t) for t in (1.0, 0.75, 0.5, 0.25)] + [0.0]
    assert solver.sigmas.tolist() == pytest.approx(expected, abs=2e-3)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 4, 2, 3, 3, generator=generator)
    ours, euler = start, start
    for index, t in enumerate(solver.timesteps):
        flow = torch.randn(start.shape, generator=generator)
        ours = solver.step(flow, t, ours, return_dict=False)[0]
        euler = euler + (solver.sigmas[index + 1] - solver.sigmas[index]) * flow
    assert torch.allclose(ours, euler, atol=1e-4)


def test_vace_uses_no_cache_that_adds_its_control_twice() -> None:
    for model in ("wan-2.1-vace-1.3b", "wan-2.1-vace-14b"):
        speed = shipped.card(model).acceleration
        kinds = {cache.kind for cache in (speed.balanced, speed.fast) if cache is not None}
        assert kinds == {"taylor_seer"}


def test_the_step_caches_of_vace_save_work(bare: Open) -> None:
    tiny = bare("wan-2.1-vace", "r2v")
    plain, balanced, fast = (
        tiny.passes(cache, given("r2v", 1), steps=10)
        for cache in (None, tiny.card.acceleration.balanced, tiny.card.acceleration.fast)
    )
    assert plain == 20
    assert fast < balanced < plain


def test_tiny_weights_are_the_same_every_time(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, second = (wan.write_t2v(tmp_path / name) for name in ("a", "b"))
    assert torch.equal(torch.get_rng_state(), state)
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert first.joinpath(file).read_bytes() == second.joinpath(file).read_bytes()
