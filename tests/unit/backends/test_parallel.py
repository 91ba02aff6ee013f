from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, WanTransformer3DModel
from torch.distributed import HashStore

from kinoloom.backends.base import Inputs, Speed, Take
from kinoloom.backends.local import parallel
from kinoloom.backends.local.memory_errors import run_with_retry
from kinoloom.backends.local.parallel import FirstBackend, Group, World
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.speed import StepCache
from kinoloom.config import Settings
from kinoloom.errors import InsufficientMemory, InvalidRequest, KinoloomError
from kinoloom.weights.places import Located
from tiny_models import drive

LAUNCHED = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def group(size: int = 2) -> Group:
    return Group(World(0, 0, size), HashStore())


def wan(heads: int = 2) -> Any:
    model = WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=12, num_layers=1, ffn_dim=8, text_dim=8
    )
    return SimpleNamespace(transformer=model)


def located(folder: Path, heads: int = 2) -> Located:
    """A pipeline's folder of which only the transformer's configuration is there."""
    folder.joinpath("transformer").mkdir()
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({"num_attention_heads": heads}), encoding="utf-8")
    return Located(folder=folder)


def refused(check: Callable[[], None]) -> list[tuple[str, object]]:
    """The problems that a check names, each as field and value."""
    with pytest.raises(InvalidRequest) as caught:
        check()
    assert "one job a GPU" in caught.value.hints[0]
    return [(p.field, p.value) for p in caught.value.problems]


@pytest.mark.parametrize("missing", [None, *LAUNCHED])
def test_a_launcher_names_the_process(monkeypatch: pytest.MonkeyPatch, missing: str | None) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    if missing is not None:
        monkeypatch.delenv(missing)
    assert parallel.world() == (World(1, 0, 2) if missing is None else None)


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LAUNCHED | {"RANK": "0", "WORLD_SIZE": "1"}).items():
        monkeypatch.setenv(name, value)
    assert parallel.world() is None


def test_a_module_without_a_plan_is_refused() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(4,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
        attention_head_dim=2,
    )
    pipe = SimpleNamespace(unet=unet)
    problems = refused(lambda: group().split(pipe, torch.device("cpu")))
    assert problems == [("model", "UNet2DConditionModel")]


def test_heads_of_a_module_that_do_not_divide_are_refused() -> None:
    problems = refused(lambda: group(3).split(wan(heads=2), torch.device("cpu")))
    assert problems == [("processes", 3)]


@pytest.mark.parametrize(
    ("model", "divided"),
    [
        ("wan-2.1-t2v-1.3b", True),
        ("wan-2.1-flf2v-14b", True),
        ("wan-2.2-i2v-a14b", True),
        ("wan-2.1-vace-14b", False),
        ("skyreels-v2-t2v-14b-540p", False),
        ("ltx-video-13b-0.9.7", False),
        ("ltx-2", False),
    ],
)
def test_what_the_card_says_is_known_before_anything_is_loaded(
    tmp_path: Path, model: str, divided: bool
) -> None:
    card, place = Catalog.load().get(model), located(tmp_path)
    if divided:
        group().check(drive.take_of(), card, place)
    else:
        problems = refused(lambda: group().check(drive.take_of(), card, place))
        assert problems == [("model", model)]


def test_heads_are_read_from_the_configuration(tmp_path: Path) -> None:
    card, place = Catalog.load().get("wan-2.1-t2v-1.3b"), located(tmp_path, heads=12)
    group(3).check(drive.take_of(), card, place)
    assert refused(lambda: group(5).check(drive.take_of(), card, place)) == [("processes", 5)]


def test_a_single_file_has_no_heads_that_are_known(tmp_path: Path) -> None:
    assert parallel.heads_of(Located(file=tmp_path / "model.safetensors")) == []


def test_everything_that_cannot_be_divided_is_named_at_once(tmp_path: Path) -> None:
    speed = Speed(attention="flex", cache=StepCache(kind="first_block", settings={}))
    take = drive.take_of(placement="model_offload", speed=speed)
    card, place = Catalog.load().get("ltx-2"), located(tmp_path, heads=3)
    fields = [f for f, _ in refused(lambda: group().check(take, card, place))]
    assert fields == ["model", "placement", "step cache", "attention", "processes"]


def test_a_refused_render_leaves_the_others_waiting(tmp_path: Path) -> None:
    """They are told of the next one, which may be one that can be divided."""
    located(tmp_path)
    card = Catalog.load().get("ltx-2")
    one = group()
    backend = FirstBackend(Settings(home=tmp_path), one)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parallel, "locate", lambda *_: Located(folder=tmp_path))
        with pytest.raises(InvalidRequest):
            backend.render(drive.take_of(), card, Inputs(), lambda _: None)
    assert backend.held == 0
    assert not one._ended


def test_each_process_has_a_gpu_of_its_own() -> None:
    second = Group(World(1, 1, 2), HashStore())
    take = drive.take_of(device="cuda NVIDIA H200 in 2 processes")
    assert second.here_take(take) == replace(take, device="cuda:1 NVIDIA H200 in 2 processes")
    cpu = drive.take_of(device="cpu x2 in 2 processes")
    assert second.here_take(cpu) == cpu


def test_an_ended_group_does_not_render() -> None:
    ended = group()
    ended.end()
    with pytest.raises(KinoloomError, match="ended"):
        ended.begin(drive.take_of(), None, None)  # type: ignore[arg-type]


def test_without_retry_memory_is_asked_for_once() -> None:
    tried = []

    def render(take: Take) -> Any:
        tried.append(take)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InsufficientMemory):
        run_with_retry(drive.take_of(device="cuda"), render, lambda: None, retry=False)
    assert len(tried) == 1
