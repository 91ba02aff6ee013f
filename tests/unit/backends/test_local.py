from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinoloom.backends.base import Inputs, Progress, Take
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.source import Source
from kinoloom.errors import (
    InvalidRequest,
    MissingPackage,
    ModelBroken,
)
from kinoloom.request import Task

pytestmark = pytest.mark.usefixtures("one_thread")

MakeTake = Callable[..., Take]
Silent = Callable[[Progress], None]
New = Callable[..., LocalBackend]
Loaded = Callable[[LocalBackend], Any]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def video(seed: int, frames: int = 9) -> np.ndarray:
    return np.stack([picture(seed + i) for i in range(frames)])


INPUTS: dict[Task, Inputs] = {
    "t2v": Inputs(),
    "i2v": Inputs(image=picture(1)),
    "flf2v": Inputs(image=picture(1), last_image=picture(2)),
    "extend": Inputs(video=video(3)),
}


def recipe_of(card: ModelCard, task: Task, **changes: object) -> ModelCard:
    """The card with another recipe for one task."""
    recipe = card.pipelines[task].model_copy(update=changes)
    return card.model_copy(update={"pipelines": {**card.pipelines, task: recipe}})


@pytest.mark.parametrize("task", list(INPUTS))
def test_every_task_gives_frames_of_the_takes_size(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, task: Task
) -> None:
    events: list[Progress] = []
    frames = 17 if task == "extend" else 9
    take = make_take(task=task, frames=frames, width=96)
    inputs = Inputs(
        **{
            name: value.repeat(2, axis=-2)[..., :96, :]
            for name, value in vars(INPUTS[task]).items()
            if isinstance(value, np.ndarray)
        }
    )
    made = warm.render(take, tiny_card, inputs, events.append)
    assert made.frames.shape == (frames, 64, 96, 3)
    assert made.frames.dtype == np.uint8
    assert made.frames.std() > 5
    assert [e.phase for e in events] == ["load", "encode", *["denoise"] * 3, "decode"]
    assert [(e.step, e.steps) for e in events[2:5]] == [(1, 3), (2, 3), (3, 3)]
    for event in events[2:5]:
        assert event.preview is not None
        assert event.preview.shape == (4, 6, 3)
        assert event.preview.dtype == np.uint8
        assert event.preview.std() > 0


@pytest.mark.parametrize("task", list(INPUTS))
def test_same_seed_same_frames(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    task: Task,
    new_backend: New,
) -> None:
    take = make_take(task=task, frames=17)
    first = warm.render(take, tiny_card, INPUTS[task], silent).frames
    again = warm.render(take, tiny_card, INPUTS[task], silent).frames
    fresh = new_backend().render(take, tiny_card, INPUTS[task], silent).frames
    other = warm.render(dataclasses.replace(take, seed=8), tiny_card, INPUTS[task], silent).frames
    assert np.array_equal(first, again)
    assert np.array_equal(first, fresh)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "blue square grass"},
        {"negative": "blue square grass"},
        {"guidance": 5.0},
        {"steps": 2},
        {"fps": 24.0},
    ],
)
def test_everything_that_a_take_says_matters(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    change: dict[str, object],
) -> None:
    plain = warm.render(make_take(), tiny_card, nothing, silent).frames
    changed = warm.render(make_take(**change), tiny_card, nothing, silent).frames
    assert not np.array_equal(plain, changed)


@pytest.mark.parametrize(
    ("task", "name"),
    [("i2v", "image"), ("flf2v", "image"), ("flf2v", "last_image"), ("extend", "video")],
)
def test_every_input_matters(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    task: Task,
    name: str,
) -> None:
    take = make_take(task=task, frames=17)
    given = INPUTS[task]
    changed = dataclasses.replace(given, **{name: 255 - getattr(given, name)})
    first = warm.render(take, tiny_card, given, silent).frames
    second = warm.render(take, tiny_card, changed, silent).frames
    assert not np.array_equal(first, second)


def test_the_schedule_of_the_card_is_used(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    loaded: Loaded,
) -> None:
    warm.render(make_take(steps=4), tiny_card, nothing, silent)
    sigmas = loaded(warm).pipe.scheduler.sigmas
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_what_it_was_made_with_is_told(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, silent: Silent, nothing: Inputs
) -> None:
    made = warm.render(make_take(), tiny_card, nothing, silent)
    assert made.device == "cpu x1"
    assert made.dtype == "float32"
    assert made.versions["torch"] == torch.__version__
    assert set(made.versions) == {"torch", "diffusers", "transformers"}
    assert set(made.seconds) == {"load", "encode", "denoise", "step", "decode"}
    assert min(made.seconds.values()) >= 0
    assert made.seconds["step"] > 0


def test_loading_is_told_before_torch_is_imported(tiny_cards: Path) -> None:
    """The import takes seconds; it is part of the loading, in the report as in the time."""
    code = (
        "import sys; from pathlib import Path\n"
        "from kinoloom.backends.base import Inputs, Take\n"
        "from kinoloom.backends.local.backend import LocalBackend\n"
        "from kinoloom.catalog.loader import Catalog\n"
        "from kinoloom.config import Settings\n"
        f"card = Catalog.load(Path({str(tiny_cards)!r})).get('tiny')\n"
        "take = Take('t2v', 'a ball', '', 64, 64, 9, 12.0, 2, 2.0, 7, 'cpu x1')\n"
        "def stop(event): sys.exit(f'{event.phase} {\"torch\" in sys.modules}')\n"
        "LocalBackend(Settings(home='none')).render(take, card, Inputs(), stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "load False\n"


def test_one_step_has_a_time_too(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, silent: Silent, nothing: Inputs
) -> None:
    assert warm.render(make_take(steps=1), tiny_card, nothing, silent).seconds["step"] > 0


def test_previews_of_a_long_render_are_few_and_end_with_the_result(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, nothing: Inputs
) -> None:
    events: list[Progress] = []
    warm.render(make_take(steps=19), tiny_card, nothing, events.append)
    with_picture = [e.step for e in events if e.preview is not None]
    assert with_picture == [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]


@pytest.mark.parametrize("task", ["t2v", "flf2v"])
def test_the_last_preview_is_that_of_the_finished_latents(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    monkeypatch: pytest.MonkeyPatch,
    task: Task,
    loaded: Loaded,
) -> None:
    """What the decoder was given, seen through the same map, is the last preview."""
    take = make_take(task=task, frames=17)
    warm.render(take, tiny_card, INPUTS[task], silent)
    vae = loaded(warm).pipe.vae
    decoded: list[torch.Tensor] = []
    decode = vae.decode

    def watch(latents: torch.Tensor, *args: object, **rest: object) -> object:
        decoded.append(latents)
        return decode(latents, *args, **rest)

    monkeypatch.setattr(vae, "decode", watch)
    events: list[Progress] = []
    warm.render(take, tiny_card, INPUTS[task], events.append)
    seen = loaded(warm).preview.picture(decoded[0][0])
    last = events[-2].preview
    assert last is not None
    assert np.abs(last.astype(int) - seen).max() <= 1


def test_a_preview_shows_where_the_render_is_going(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    loaded: Loaded,
) -> None:
    """With a velocity that stays the same the result is known from the second step on."""
    warm.render(make_take(), tiny_card, nothing, silent)

    def forward(*, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        return (torch.full_like(hidden_states, 2.0),)

    monkeypatch.setattr(loaded(warm).pipe.transformer, "forward", forward)
    events: list[Progress] = []
    warm.render(make_take(steps=4), tiny_card, nothing, events.append)
    first, *later = (e.preview.astype(int) for e in events if e.preview is not None)
    assert len(later) == 3
    assert all(np.abs(p - later[-1]).max() <= 1 for p in later)
    assert np.abs(first - later[-1]).max() > 5


@pytest.mark.parametrize("phase", ["load", "encode", "denoise", "decode"])
def test_what_the_listener_raises_passes_and_leaves_nothing_behind(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    phase: str,
    new_backend: New,
) -> None:
    class Stop(Exception):
        pass

    def stop(event: Progress) -> None:
        if event.phase == phase and event.step in (0, 2, 3):
            raise Stop

    take, inputs = make_take(task="i2v"), INPUTS["i2v"]
    backend = new_backend()
    before = backend.render(take, tiny_card, inputs, silent).frames
    with pytest.raises(Stop):
        backend.render(dataclasses.replace(take, seed=99), tiny_card, inputs, stop)
    assert np.array_equal(backend.render(take, tiny_card, inputs, silent).frames, before)


def test_a_keyboard_interrupt_passes_too(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, nothing: Inputs
) -> None:
    def stop(event: Progress) -> None:
        if event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm.render(make_take(), tiny_card, nothing, stop)


@pytest.mark.parametrize(
    ("component", "weight"), [("transformer", "proj_out.weight"), ("vae", None)]
)
def test_numbers_that_are_no_picture_are_refused(
    own_copy: Callable[[], ModelCard],
    tmp_path: Path,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    component: str,
    weight: str | None,
    new_backend: New,
) -> None:
    file = next((tmp_path / "tiny" / component).glob("*.safetensors"))
    tensors = load_file(file)
    for name in [weight] if weight else [n for n in tensors if n.endswith("conv.weight")]:
        tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, file, metadata={"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(ModelBroken, match="NaN") as caught:
            new_backend().render(make_take(), own_copy(), nothing, silent)
    assert "float32" in caught.value.hints[0]


def test_an_unknown_adapter(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    new_backend: New,
) -> None:
    card = tiny_card.model_copy(update={"adapter": "nothing_like_it"})
    with pytest.raises(ModelBroken, match="nothing_like_it") as caught:
        new_backend().render(make_take(), card, nothing, silent)
    assert "adapter" in caught.value.hints[0]


def test_arguments_that_the_pipeline_does_not_take(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, silent: Silent, nothing: Inputs
) -> None:
    card = recipe_of(tiny_card, "t2v", arguments={"max_sequence_length": 16, "motion_bucket": 3})
    with pytest.raises(ModelBroken, match=r"LTXConditionPipeline does not take motion_bucket\."):
        warm.render(make_take(), card, nothing, silent)


def test_a_device_that_is_not_there(
    warm: LocalBackend, tiny_card: ModelCard, make_take: MakeTake, silent: Silent, nothing: Inputs
) -> None:
    with pytest.raises(InvalidRequest):
        warm.render(make_take(device="tpu v5"), tiny_card, nothing, silent)


def test_missing_packages_are_named(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    new_backend: New,
) -> None:
    found = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name: None if name in ("torch", "ftfy") else found(name)
    )
    backend = new_backend()
    ready = backend.readiness(tiny_card)
    assert not ready.ready
    assert ready.reasons == ("not installed: torch, ftfy",)
    with pytest.raises(MissingPackage) as caught:
        backend.render(make_take(), tiny_card, nothing, silent)
    assert "kinoloom[local]" in caught.value.hints[0]


def test_readiness_looks_for_the_weights(
    tiny_card: ModelCard,
    tmp_path: Path,
    new_backend: New,
) -> None:
    backend = new_backend()
    assert backend.readiness(tiny_card).ready
    gone = backend.readiness(tiny_card.model_copy(update={"source": Source(path=tmp_path)}))
    assert not gone.ready
    assert gone.reasons
    assert gone.hints[0] == "check the path in the model's card"
