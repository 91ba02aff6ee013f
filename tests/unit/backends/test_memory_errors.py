from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Phase, Placement, Rendered, Take
from kinoloom.backends.local.memory_errors import is_out_of_memory, next_placement, run_with_retry
from kinoloom.errors import ErrorKind, InsufficientMemory, InvalidRequest, ModelBroken

TAKE = Take(
    task="t2v",
    prompt="a ball",
    negative="",
    width=64,
    height=64,
    frames=9,
    fps=12,
    steps=2,
    guidance=1.0,
    seed=0,
    device="cuda NVIDIA H200",
)


def rendered(take: Take) -> Rendered:
    return Rendered(
        frames=np.zeros((9, 64, 64, 3), np.uint8),
        seconds={},
        device=take.device,
        dtype="float32",
        versions={},
        placement=take.placement,
        notes=("its own",),
    )


class Machine:
    """Renders takes whose placement it has room for, and runs out of memory with the others."""

    def __init__(self, *room_for: Placement) -> None:
        self.room_for = room_for
        self.log: list[str] = []

    def render(self, take: Take) -> Rendered:
        self.log.append(take.placement)
        if take.placement not in self.room_for:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore.")
        return rendered(take)

    def free(self) -> None:
        self.log.append("free")

    def run(self, take: Take = TAKE) -> Rendered:
        return run_with_retry(take, self.render, self.free)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("Invalid buffer size: 31.64 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        InsufficientMemory("does not fit"),
    ],
)
def test_the_ways_in_which_memory_runs_out(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"),
     InvalidRequest([]), KeyboardInterrupt()],
)  # fmt: skip
def test_other_errors_are_not_about_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_real_allocation_that_cannot_be() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)


def test_an_error_raised_from_one_about_memory_counts() -> None:
    broken = ModelBroken("cannot be loaded")
    broken.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(broken)


def test_the_ladder_of_a_gpu_has_four_steps() -> None:
    found = []
    take: Take | None = TAKE
    while (take := next_placement(take, "denoise")) is not None:
        found.append(take.placement)
        assert not take.tiling, "tiles help with decoding only"
    assert found == ["model_offload", "group_offload", "sequential"]
    fp8 = next_placement(replace(TAKE, placement="fp8"))
    assert fp8 is not None
    assert (fp8.placement, fp8.tiling) == ("model_offload", True)


def test_decoding_is_tried_in_tiles_first() -> None:
    assert next_placement(TAKE, "decode") == replace(TAKE, tiling=True)
    lower = next_placement(replace(TAKE, tiling=True), "decode")
    assert lower == replace(TAKE, tiling=True, placement="model_offload")
    untiled = next_placement(TAKE, "decode", tiles=False)
    assert untiled == replace(TAKE, placement="model_offload")


@pytest.mark.parametrize("device", ["cpu x2", "mps"])
@pytest.mark.parametrize("phase", [None, "load", "denoise"])
def test_a_device_with_one_memory_has_nothing_lower(device: str, phase: Phase | None) -> None:
    take = replace(TAKE, device=device)
    assert next_placement(take, phase) is None
    assert next_placement(take, "decode") == replace(take, tiling=True)


def test_what_fits_is_rendered_once() -> None:
    machine = Machine("resident")
    assert machine.run().notes == ("its own",)
    assert machine.log == ["resident"]


def test_one_level_down_after_everything_was_freed() -> None:
    machine = Machine("model_offload")
    found = machine.run()
    assert machine.log == ["resident", "free", "model_offload"]
    assert found.placement == "model_offload"
    assert found.notes[0] == "its own"
    assert "Memory ran out with all weights on the device" in found.notes[1]
    assert "one component at a time" in found.notes[1]


def test_no_third_attempt_and_the_next_render_is_as_ever() -> None:
    machine = Machine("sequential")
    with pytest.raises(InsufficientMemory) as failure:
        machine.run()
    assert machine.log == ["resident", "free", "model_offload", "free"]
    error = failure.value
    assert error.kind == ErrorKind.INSUFFICIENT_VRAM
    assert "9 frames of 64x64" in error.message
    assert error.cause == "CUDA out of memory. Tried to allocate 20.00 GiB."
    assert error.hints
    machine.log.clear()
    machine.room_for = ("resident",)
    assert machine.run().notes == ("its own",)


def test_where_nothing_is_lower_it_fails_at_once() -> None:
    machine = Machine()
    with pytest.raises(InsufficientMemory):
        machine.run(replace(TAKE, placement="sequential", device="cuda"))
    assert machine.log == ["sequential", "free"]


def test_other_errors_pass_untouched() -> None:
    def broken(take: Take) -> Rendered:
        raise ModelBroken("its files are damaged")

    freed: list[int] = []
    with pytest.raises(ModelBroken, match="damaged"):
        run_with_retry(TAKE, broken, lambda: freed.append(1))
    assert freed == []


def test_the_second_attempts_own_error_is_told() -> None:
    def render(take: Take) -> Rendered:
        if take == TAKE:
            raise MemoryError
        raise ModelBroken("its files are damaged")

    with pytest.raises(ModelBroken):
        run_with_retry(TAKE, render, lambda: None)


def test_the_phase_of_the_first_attempt_decides_what_is_tried() -> None:
    takes = []

    def render(take: Take) -> Rendered:
        takes.append(take)
        if len(takes) == 1:
            raise MemoryError
        return rendered(take)

    found = run_with_retry(TAKE, render, lambda: None, phase=lambda: "decode")
    assert takes[1] == replace(TAKE, tiling=True)
    assert "decoded in tiles" in found.notes[-1]


def test_nothing_of_the_failed_attempt_stays_in_memory() -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    alive_when_freed: list[bool] = []

    def inner() -> None:
        large = torch.zeros(10)
        seen.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def render(take: Take) -> Rendered:
        if take == TAKE:
            try:
                inner()
            except RuntimeError as error:
                raise InsufficientMemory("no room") from error
        return rendered(take)

    def free() -> None:
        alive_when_freed.append(seen[0]() is not None)

    run_with_retry(TAKE, render, free)
    assert alive_when_freed == [False]
