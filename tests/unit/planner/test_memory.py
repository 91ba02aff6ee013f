from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoloom.backends.base import Placement, Speed, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.speed import Acceleration, Memory, StepCache
from kinoloom.errors import ErrorKind, InsufficientMemory
from kinoloom.planner.estimate import Measurement
from kinoloom.planner.memory import MemoryPlan, plan_memory, what_fits
from kinoloom.planner.peak import RESERVED_BYTES, card_peak, host_bytes

GB = 10**9
ORDER: tuple[Placement, ...] = ("resident", "fp8", "model_offload", "group_offload", "sequential")
SPARK = Catalog.load().get("spark")
# As large as Wan 2.1 14B, in half precision; sizes and frame counts are spark's, far smaller.
LARGE = SPARK.model_copy(
    update={
        "id": "large",
        "memory": Memory(
            components={
                "transformer": 28 * GB,
                "text_encoder": 11 * GB,
                "vae": GB // 2,
            },
            working=150,
            decoding=400,
        ),
        "acceleration": Acceleration(fp8=True),
        "sizes": SPARK.sizes.model_copy(
            update={
                "native": [(832, 480), (512, 320)],
                "default": (832, 480),
                "maximum": 832,
                "only_native": False,
            }
        ),
        "frames": SPARK.frames.model_copy(update={"maximum": 81, "default": 81}),
    }
)
MEASURED = Measurement(
    model="large",
    device="cuda H200",
    width=832,
    height=480,
    frames=81,
    guidance=3.0,
    seconds_per_step=1.0,
    overhead=1.0,
    peak=50 * GB,
)


def ask(card: ModelCard = LARGE, **changes: Any) -> MemoryPlan:
    values: dict[str, Any] = {
        "task": "t2v",
        "size": (832, 480),
        "frames": 81,
        "device": "cuda H200",
        "device_kind": "cuda",
        "free_bytes": 140 * GB,
        "ram_free_bytes": 200 * GB,
    }
    return plan_memory(card, **(values | changes))


def refused(card: ModelCard = LARGE, **changes: Any) -> InsufficientMemory:
    with pytest.raises(InsufficientMemory) as failure:
        ask(card, **changes)
    assert failure.value.kind == ErrorKind.INSUFFICIENT_VRAM
    return failure.value


def steps_down(**changes: Any) -> list[tuple[str, bool]]:
    """The different choices as the free memory shrinks from 140 GB, until nothing fits."""
    found: list[tuple[str, bool]] = []
    for gb in range(1400, 0, -1):
        try:
            plan = ask(free_bytes=gb * GB // 10, **changes)
        except InsufficientMemory:
            break
        if (plan.placement, plan.tiling) not in found:
            found.append((plan.placement, plan.tiling))
    return found


def test_all_placements_are_taken_as_memory_shrinks() -> None:
    assert steps_down() == [
        ("resident", False),
        ("resident", True),
        ("model_offload", False),
        ("group_offload", False),
        ("group_offload", True),
        ("sequential", True),
    ]
    assert steps_down(allow_fp8=True)[1:5] == [
        ("resident", True),
        ("fp8", False),
        ("fp8", True),
        ("group_offload", False),
    ]


def test_eight_bits_only_where_card_and_request_allow_them() -> None:
    assert "fp8" not in dict(steps_down())
    strict = LARGE.model_copy(update={"acceleration": Acceleration()})
    assert ask(strict, free_bytes=40 * GB, allow_fp8=True).placement == "model_offload"
    assert ask(free_bytes=60 * GB, allow_fp8=True, frames=9).placement == "resident"


@settings(max_examples=200, deadline=None)
@given(
    free=st.integers(0, 200 * GB),
    budget=st.none() | st.integers(1, 200 * GB),
    ram=st.none() | st.integers(0, 100 * GB),
    frames=st.sampled_from([1, 9, 25, 81]),
    task=st.sampled_from(["t2v", "i2v"]),
    fp8=st.booleans(),
    kind=st.sampled_from(["cuda", "mps", "cpu"]),
    dtype_bytes=st.sampled_from([2, 4]),
    peak=st.none() | st.integers(1, 100 * GB),
    measured=st.sampled_from(ORDER),
)
def test_what_is_chosen_fits_and_is_the_fastest_that_does(
    free: int,
    budget: int | None,
    ram: int | None,
    frames: int,
    task: Any,
    fp8: bool,
    kind: Any,
    dtype_bytes: int,
    peak: int | None,
    measured: Placement,
) -> None:
    values: dict[str, Any] = {
        "free_bytes": free,
        "budget_bytes": budget,
        "ram_free_bytes": ram,
        "frames": frames,
        "task": task,
        "allow_fp8": fp8,
        "device_kind": kind,
        "dtype_bytes": dtype_bytes,
        "measurements": [replace(MEASURED, placement=measured, frames=25, peak=peak)],
    }

    def one(placement: Placement) -> MemoryPlan | None:
        try:
            return ask(**values, wanted=placement)
        except InsufficientMemory:
            return None

    fitting = [p for p in ORDER if one(p) is not None]
    if not fitting:
        refused(**values)
        return
    plan = ask(**values)
    assert plan.placement == fitting[0]
    assert plan == one(plan.placement)
    assert plan.predicted_peak is not None
    assert plan.predicted_peak <= min(free, free if budget is None else budget)
    if plan.placement == "fp8":
        assert fp8
    host = host_bytes(LARGE, plan.placement, dtype_bytes)
    assert host is not None
    assert ram is None or host <= ram
    assert MemoryPlan.model_validate_json(plan.model_dump_json()) == plan


@settings(max_examples=100, deadline=None)
@given(less=st.integers(0, 140 * GB), more=st.integers(0, 140 * GB), frames=st.integers(0, 10))
def test_more_free_memory_is_never_slower(less: int, more: int, frames: int) -> None:
    less, more = sorted((less, more))

    def rank(free: int) -> int:
        try:
            plan = ask(free_bytes=free, frames=8 * frames + 1)
        except InsufficientMemory:
            return len(ORDER) * 2
        return ORDER.index(plan.placement) * 2 + plan.tiling

    assert rank(more) <= rank(less)


@given(
    placement=st.sampled_from(ORDER),
    tiling=st.booleans(),
    frames=st.integers(1, 80),
    dtype_bytes=st.sampled_from([2, 4]),
    media=st.booleans(),
)
def test_a_longer_clip_needs_no_less_and_tiles_no_more(
    placement: Placement, tiling: bool, frames: int, dtype_bytes: int, media: bool
) -> None:
    def peak(count: int, tiles: bool) -> int:
        found = card_peak(
            LARGE,
            placement,
            tiles,
            size=(832, 480),
            frames=count,
            dtype_bytes=dtype_bytes,
            media=media,
        )
        assert found is not None
        return found

    assert peak(frames, tiling) <= peak(frames + 1, tiling)
    assert peak(frames, True) <= peak(frames, False)


def test_files_of_wide_numbers_are_narrower_in_memory() -> None:
    assert LARGE.memory is not None
    names = list(LARGE.memory.components)
    wide = LARGE.model_copy(update={"memory": LARGE.memory.model_copy(update={"float32": names})})
    assert ask(free_bytes=40 * GB).placement == "model_offload"
    assert ask(wide, free_bytes=40 * GB).placement == "resident"
    assert ask(wide, free_bytes=40 * GB, dtype_bytes=4).placement == "model_offload"


def test_what_the_card_leaves_out_is_taken_from_real_models() -> None:
    # Measured: 8.6 GB of live tensors in a pass of Wan 2.1 14B at 1280x720, 81 frames.
    bare = Memory(components={"transformer": 28_580_000_000})
    card = LARGE.model_copy(update={"memory": bare})
    peak = card_peak(
        card, "sequential", True, size=(1280, 720), frames=81, dtype_bytes=2, media=False
    )
    assert peak is not None
    assert 8.6 * GB < peak < 2.5 * 8.6 * GB


def test_a_clip_of_windows_is_denoised_in_no_more_memory_than_one_window() -> None:
    assert LARGE.memory is not None
    windows = LARGE.memory.model_copy(update={"window": 33, "decoding": 1})

    def peak(memory: Memory, frames: int) -> int:
        card = LARGE.model_copy(update={"memory": memory})
        values: dict[str, Any] = {"size": (832, 480), "dtype_bytes": 2, "media": False}
        found = card_peak(card, "model_offload", False, frames=frames, **values)
        assert found is not None
        return found

    whole = windows.model_copy(update={"window": None})
    assert peak(windows, 25) == peak(whole, 25)
    assert peak(windows, 81) == peak(windows, 33) < peak(whole, 81)


def test_the_budget_counts_as_free_memory_does() -> None:
    reserved = RESERVED_BYTES["cuda"]
    assert ask(budget_bytes=40 * GB).placement == "model_offload"
    assert ask(budget_bytes=40 * GB) == ask(free_bytes=40 * GB + reserved)
    error = refused(budget_bytes=GB)
    assert "memory_budget" in error.hints[0]


def test_main_memory_must_hold_what_is_moved_there() -> None:
    assert ask(free_bytes=40 * GB, ram_free_bytes=30 * GB).placement == "model_offload"
    error = refused(free_bytes=40 * GB, ram_free_bytes=10 * GB)
    assert "main memory" in error.cause


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_one_memory_gives_nothing_to_move(kind: Any) -> None:
    assert ask(device_kind=kind).placement == "resident"
    refused(device_kind=kind, free_bytes=42 * GB)


def test_a_cpu_takes_eight_bits_before_it_refuses() -> None:
    plan = ask(device_kind="cpu", free_bytes=55 * GB, frames=9, dtype_bytes=4, allow_fp8=True)
    assert plan.placement == "fp8"


def test_measured_comes_before_interpolated_before_the_card() -> None:
    assert ask().source == "card"
    plan = ask(measurements=[MEASURED])
    assert (plan.source, plan.predicted_peak) == ("measured", 50 * GB)
    around = [replace(MEASURED, frames=41, peak=45 * GB), replace(MEASURED, frames=121)]
    plan = ask(measurements=around)
    assert (plan.source, plan.predicted_peak) == ("interpolated", round(47.5 * GB))
    assert ask(measurements=around[1:]).source == "card"
    asked: list[tuple[str, str]] = []

    def store(model: str, device: str) -> list[Measurement]:
        asked.append((model, device))
        return [MEASURED]

    assert ask(measurements=store).source == "measured"
    assert asked == [("large", "cuda H200")]


@pytest.mark.parametrize(
    "other",
    [
        {"placement": "model_offload"},
        {"tiling": True},
        {"device": "cuda T4"},
        {"model": "another"},
        {"peak": None},
        {"peak": 0},
    ],
)
def test_only_like_renders_tell_the_peak(other: dict[str, Any]) -> None:
    assert ask(measurements=[replace(MEASURED, **other)]) == ask()


def test_of_the_newest_renders_the_highest_counts() -> None:
    peaks = [40, 45, 42, 90]  # the newest first
    found = ask(measurements=[replace(MEASURED, peak=p * GB) for p in peaks])
    assert found.predicted_peak == 45 * GB


def test_a_shorter_measured_clip_bounds_the_cards_word() -> None:
    high = ask(measurements=[replace(MEASURED, frames=73, peak=139 * GB)], free_bytes=135 * GB)
    assert high.tiling, "what 73 frames were seen to need, 81 need too"
    low = ask(measurements=[replace(MEASURED, frames=121, peak=42 * GB)], free_bytes=50 * GB)
    assert (low.placement, low.predicted_peak) == ("resident", 42 * GB)


def test_without_any_figures_it_is_tried_as_it_is() -> None:
    card = LARGE.model_copy(update={"memory": None})
    plan = ask(card, free_bytes=8 * GB)
    assert (plan.placement, plan.predicted_peak, plan.source) == ("resident", None, "unknown")
    assert "not known" in plan.why
    seen = replace(MEASURED, placement="group_offload", tiling=True, peak=5 * GB)
    plan = ask(card, free_bytes=8 * GB, measurements=[seen])
    assert (plan.placement, plan.source) == ("group_offload", "measured")


def test_free_memory_that_is_not_known() -> None:
    plan = ask(free_bytes=None)
    assert (plan.placement, plan.free, plan.source) == ("resident", None, "card")
    assert plan.predicted_peak is not None


def test_the_wish_for_a_placement_is_kept_or_refused() -> None:
    assert ask(wanted="sequential").placement == "sequential"
    refused(wanted="resident", free_bytes=30 * GB)


def test_a_refusal_says_what_would_fit_and_it_does() -> None:
    other = SPARK
    error = refused(free_bytes=5 * GB, others=[LARGE, other])
    assert "81 frames of 832x480 with large" in error.message
    hints = " | ".join(error.hints)
    frames = int(hints.partition("ask for ")[2].split()[0])
    assert frames % 8 == 1
    ask(free_bytes=5 * GB, frames=frames)
    refused(free_bytes=5 * GB, frames=frames + 8)
    assert "512x320" in hints
    ask(free_bytes=5 * GB, size=(512, 320))
    assert "--model spark makes 25 frames of 256x160" in hints


def test_nothing_is_named_that_would_not_fit() -> None:
    error = refused(free_bytes=GB)
    assert error.hints == ("close other programs that use the device's memory",)


def test_eight_bits_are_offered_where_they_are_what_is_missing() -> None:
    values: dict[str, Any] = {"device_kind": "cpu", "free_bytes": 55 * GB, "dtype_bytes": 4}
    error = refused(**values, frames=9)
    assert "acceleration=balanced" in error.hints[0]


def after_failure(card: ModelCard = LARGE, free: int | None = 45 * GB, **changes: Any) -> list[str]:
    """What is named when a take was tried on a GPU and did not fit."""
    take = Take(
        **{
            "task": "t2v",
            "prompt": "a ball",
            "negative": "",
            "width": 832,
            "height": 480,
            "frames": 81,
            "fps": 12.0,
            "steps": 2,
            "guidance": 1.0,
            "seed": 0,
            "device": "cuda H200",
            "placement": "model_offload",
        }
        | changes
    )
    known = {"free_bytes": free, "budget_bytes": None, "dtype_bytes": 2}
    return list(what_fits(card, take, **known))


def test_what_is_named_after_a_failure_needs_less_than_what_failed() -> None:
    eight_bits, shorter, smaller, budget = after_failure()
    assert "acceleration=balanced" in eight_bits
    frames = int(shorter.partition("ask for ")[2].split()[0])
    assert frames < 81
    assert smaller == "ask for the size 512x320"
    assert budget.startswith("set memory_budget to ")
    assert "a few layers at a time" in budget


def test_what_is_named_after_a_failure_fits_into_what_is_free() -> None:
    hints = after_failure(free=31 * GB)
    shorter, smaller = (h for h in hints if h.startswith("ask for"))
    frames = int(shorter.partition("ask for ")[2].split()[0])
    ask(free_bytes=31 * GB, frames=frames, wanted="model_offload")
    refused(free_bytes=31 * GB, frames=frames + 8, wanted="model_offload")
    assert smaller == "ask for the size 512x320"


def test_the_budget_that_is_named_makes_the_plan_a_slower_one() -> None:
    *_, line = after_failure(placement="group_offload")
    budget = int(line.partition("memory_budget to ")[2].partition("MB")[0]) * 10**6
    assert ask(budget_bytes=budget).placement == "sequential"
    lowest = after_failure(placement="sequential", tiling=True, free=None)
    assert not any("memory_budget" in hint for hint in lowest)


def test_eight_bits_are_offered_after_a_failure_unless_frames_may_change_already() -> None:
    values: dict[str, Any] = {"device": "cpu x2", "placement": "resident", "free": 100 * GB}
    assert "acceleration=balanced" in after_failure(**values)[0]
    cached = Speed(cache=StepCache(kind="first_block"))
    assert not any("balanced" in hint for hint in after_failure(**values, speed=cached))


def test_without_the_cards_numbers_nothing_is_named_after_a_failure() -> None:
    assert after_failure(LARGE.model_copy(update={"memory": None})) == []
