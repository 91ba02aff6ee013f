from __future__ import annotations

import pytest
import torch

from kinoloom.backends.local.device import DTYPES, available, choose_device, choose_dtype
from kinoloom.errors import InvalidRequest


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two NVIDIA GPUs, as far as torch says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing but a CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("bare")
def test_a_bare_machine_renders_on_its_cpu() -> None:
    assert available() == ["cpu"]
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("wanted", "device"),
    [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_gpu_comes_first(wanted: str, device: str) -> None:
    assert choose_device(wanted) == torch.device(device)


def test_a_mac_renders_on_its_gpu(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("wanted", ["mps", "cuda:2", "cuda:-1", "cpu:1", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        choose_device(wanted)
    assert caught.value.problems[0].nearest == "cuda"


@pytest.mark.usefixtures("bare")
def test_no_gpu_where_there_is_none() -> None:
    with pytest.raises(InvalidRequest):
        choose_device("cuda")


def test_dtypes_by_device(machine: pytest.MonkeyPatch) -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("mps")) is torch.float16
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    machine.setattr(torch.cuda, "is_bf16_supported", lambda _: False)
    assert choose_dtype("auto", torch.device("cuda")) is torch.float16


@pytest.mark.parametrize("name", list(DTYPES))
def test_a_named_dtype_is_taken_everywhere(name: str) -> None:
    assert choose_dtype(name, torch.device("cpu")) is getattr(torch, name)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        choose_dtype("int8", torch.device("cpu"))
