from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, WanTransformer3DModel
from torch.distributed import HashStore

from kinoloom.backends.base import Speed, Take
from kinoloom.backends.local import parallel
from kinoloom.backends.local.memory_errors import run_with_retry
from kinoloom.backends.local.parallel import Group, World
from kinoloom.catalog.speed import StepCache
from kinoloom.errors import InsufficientMemory, InvalidRequest, KinoloomError
from tiny_models import drive

LAUNCHED = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def group(size: int = 2) -> Group:
    return Group(World(0, 0, size), HashStore())


def wan(heads: int = 2) -> Any:
    model = WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=12, num_layers=1, ffn_dim=8, text_dim=8
    )
    return SimpleNamespace(transformer=model)


def refused(pipe: Any, take: Take, size: int = 2) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        group(size).split(pipe, take, torch.device("cpu"))
    assert "one job a GPU" in caught.value.hints[0]
    return caught.value


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


def test_a_model_without_a_plan_is_refused() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(4,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
        attention_head_dim=2,
    )
    (problem,) = refused(SimpleNamespace(unet=unet), drive.take()).problems
    assert (problem.field, problem.value) == ("model", "UNet2DConditionModel")


def test_heads_that_do_not_divide_are_refused() -> None:
    (problem,) = refused(wan(heads=2), drive.take(), size=3).problems
    assert (problem.field, problem.value) == ("processes", 3)


def test_everything_that_cannot_be_divided_is_named_at_once() -> None:
    speed = Speed(attention="flex", cache=StepCache(kind="first_block", settings={}))
    problems = refused(wan(), drive.take(placement="model_offload", speed=speed)).problems
    assert [p.field for p in problems] == ["placement", "step cache", "attention"]


def test_each_process_has_a_gpu_of_its_own() -> None:
    second = Group(World(1, 1, 2), HashStore())
    take = drive.take(device="cuda NVIDIA H200 in 2 processes")
    assert second.here_take(take) == replace(take, device="cuda:1 NVIDIA H200 in 2 processes")
    cpu = drive.take(device="cpu x2 in 2 processes")
    assert second.here_take(cpu) == cpu


def test_an_ended_group_does_not_render() -> None:
    ended = group()
    ended.end()
    with pytest.raises(KinoloomError, match="ended"):
        ended.begin(drive.take(), None, None)  # type: ignore[arg-type]


def test_without_retry_memory_is_asked_for_once() -> None:
    tried = []

    def render(take: Take) -> Any:
        tried.append(take)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InsufficientMemory):
        run_with_retry(drive.take(device="cuda"), render, lambda: None, retry=False)
    assert len(tried) == 1
