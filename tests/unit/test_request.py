from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.lora_request import LoraRequest
from kinoloom.request import VideoRequest
from kinoloom.request_checks import MAX_FRAMES, MAX_PROMPT, MAX_SEED, SIZE_NAMES

# Building hypothesis' table of characters takes a second where there is no cache of it.
lenient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def problems(**values: Any) -> dict[str, Problem]:
    with pytest.raises(InvalidRequest) as caught:
        VideoRequest.checked(**values)
    # A field may be wrong in itself and beside another one; the first says more about it.
    return {p.field: p for p in reversed(caught.value.problems)}


def only(field: str, **values: Any) -> Problem:
    found = problems(**({"prompt": "a red ball"} | values))
    assert set(found) == {field}
    return found[field]


def test_defaults_leave_everything_to_the_planner() -> None:
    request = VideoRequest.checked(prompt="a red ball")
    assert request.tier == "auto"
    assert request.format == "mp4"
    for name in ("model", "backend", "size", "frames", "duration", "fps", "steps", "guidance"):
        assert getattr(request, name) is None


def test_a_request_cannot_be_changed() -> None:
    request = VideoRequest.checked(prompt="a red ball")
    with pytest.raises(ValueError, match="frozen"):
        request.prompt = "another"  # type: ignore[misc]


def test_every_mistake_is_listed_at_once() -> None:
    found = problems(
        prompt="",
        size="12x99999",
        frames=0,
        duration=-1,
        fps=500,
        tier="premum",
        format="mp5",
        seed=-1,
        steps=999,
        guidance=51,
        last_image="b.png",
        promtp="x",
    )
    nearest = {name: p.nearest for name, p in found.items()}
    assert nearest == {
        "prompt": None,
        "size": "16x8192",
        "frames": 1,
        "duration": 0.01,
        "fps": 120,
        "tier": "premium",
        "format": "mp4",
        "seed": 0,
        "steps": 200,
        "guidance": 50,
        "last_image": None,
        "promtp": "prompt",
    }
    assert all(p.allowed for p in found.values())


def test_the_constructor_checks_as_well() -> None:
    with pytest.raises(InvalidRequest):
        VideoRequest(prompt="", frames=0)
    with pytest.raises(InvalidRequest):
        VideoRequest.model_validate({"prompt": "x", "frames": 0})
    with pytest.raises(InvalidRequest):
        VideoRequest.model_validate_json('{"prompt": "x", "frames": 0}')


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt_needs_a_picture(prompt: str) -> None:
    assert "image" in only("prompt", prompt=prompt).allowed
    assert VideoRequest.checked(prompt=prompt, image="a.png").prompt == ""
    assert VideoRequest.checked(prompt=prompt, video="a.mp4").prompt == ""


def test_ten_thousand_words_are_refused_without_repeating_them() -> None:
    problem = only("prompt", prompt="word " * 10_000)
    assert "2000" in problem.allowed
    assert "10000 words" in problem.allowed
    assert "49999" in problem.allowed
    assert len(str(problem)) < 250


def test_the_longest_prompt_is_taken() -> None:
    assert len(VideoRequest.checked(prompt="x" * MAX_PROMPT).prompt) == MAX_PROMPT
    assert only("prompt", prompt="x" * (MAX_PROMPT + 1))


def test_line_breaks_become_spaces() -> None:
    assert VideoRequest.checked(prompt=" a red\r\n\tball ").prompt == "a red ball"


@pytest.mark.parametrize("bad", ["a\0b", "a\x1b[31mb", "a\x7fb", "a\ud800b"])
@pytest.mark.parametrize("field", ["prompt", "negative"])
def test_control_characters_are_refused(field: str, bad: str) -> None:
    problem = only(field, **{field: bad})
    assert f"U+{ord(bad[1]):04X}" in problem.allowed
    assert problem.nearest in ("ab", "a[31mb")
    str(problem).encode("utf-8")


def test_other_scripts_and_emoji_are_words_too() -> None:
    text = "一个红色的球 🎬 \N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}"
    assert VideoRequest.checked(prompt=text).prompt == text


@pytest.mark.parametrize(
    ("given_size", "size"),
    [
        ("512x320", (512, 320)),
        ("512X320", (512, 320)),
        ("512×320", (512, 320)),
        (" 512 x 320 ", (512, 320)),
        ((512, 320), (512, 320)),
        ([512, 320], (512, 320)),
        ("720p", (1280, 720)),
        ("480P", SIZE_NAMES["480p"]),
        ((16, 8192), (16, 8192)),
    ],
)
def test_sizes_may_be_written_in_several_ways(given_size: Any, size: tuple[int, int]) -> None:
    assert VideoRequest.checked(prompt="x", size=given_size).size == size


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ("0x0", "16x16"),
        ("-5x20", "16x20"),
        ((15, 8193), "16x8192"),
        ((100.4, 100), "100x100"),
        ("721p", "720p"),
        ("big", None),
        ("512", None),
        ((512,), None),
        (("a", "b"), None),
        ((math.nan, 100), None),
        (512, None),
        (True, None),
    ],
)
def test_odd_sizes(size: Any, nearest: str | None) -> None:
    assert only("size", size=size).nearest == nearest


@pytest.mark.parametrize(
    ("frames", "nearest"),
    [
        (0, 1),
        (-7, 1),
        (10**6, MAX_FRAMES),
        (10**400, MAX_FRAMES),
        pytest.param(10**5000, MAX_FRAMES, id="more digits than Python prints"),
        (-(10**400), 1),
        (2.6, 3),
        ("25", 25),
        (math.inf, None),
        (math.nan, None),
        (True, None),
        ("many", None),
        ([], None),
    ],
)
def test_odd_frame_counts(frames: Any, nearest: int | None) -> None:
    problem = only("frames", frames=frames)
    assert problem.nearest == nearest
    assert type(problem.nearest) in (int, type(None))
    json.dumps(InvalidRequest([problem]).as_dict(), allow_nan=False)


@pytest.mark.parametrize("name", ["duration", "fps", "guidance"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "fast", True, None.__class__])
def test_no_number_is_no_number(name: str, value: Any) -> None:
    assert only(name, **{name: value}).nearest is None


def test_numbers_of_numpy_are_numbers() -> None:
    request = VideoRequest.checked(
        prompt="x", frames=np.int64(25), seed=np.int64(MAX_SEED), fps=np.float32(12)
    )
    assert (request.frames, request.seed, request.fps) == (25, MAX_SEED, 12.0)
    assert type(request.seed) is int


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("frames", 1, MAX_FRAMES),
        ("duration", 0.01, 3600.0),
        ("fps", 1, 120),
        ("steps", 0, 200),
        ("guidance", 0, 50),
        ("seed", 0, MAX_SEED),
    ],
)
def test_the_bounds_themselves_are_allowed(name: str, low: float, high: float) -> None:
    for value in (low, high):
        assert getattr(VideoRequest.checked(prompt="x", **{name: value}), name) == value
    assert only(name, **{name: low - 1}).nearest == low
    assert only(name, **{name: high + 1}).nearest == high


def test_frames_and_duration_exclude_each_other() -> None:
    assert "not both" in only("duration", frames=25, duration=2).allowed


def test_inputs_that_do_not_go_together() -> None:
    assert "first" in only("last_image", last_image="b.png").allowed
    found = problems(prompt="x", video="a.mp4", image="a.png", last_image="b.png")
    assert set(found) == {"image", "last_image"}


@pytest.mark.parametrize("name", ["image", "last_image", "video", "output"])
@pytest.mark.parametrize("value", ["", ".", "  ", "a\0b", 5])
def test_a_path_must_name_something(name: str, value: Any) -> None:
    assert name in problems(prompt="x", **{name: value})


@pytest.mark.parametrize("name", ["model", "backend"])
@pytest.mark.parametrize("value", ["", "   ", "a\nb", "x" * 201, 7])
def test_a_name_must_be_one(name: str, value: Any) -> None:
    only(name, **{name: value})


@pytest.mark.parametrize(
    ("inputs", "task"),
    [
        ({}, "t2v"),
        ({"image": "a.png"}, "i2v"),
        ({"image": "a.png", "last_image": "b.png"}, "flf2v"),
        ({"video": "a.mp4"}, "extend"),
        ({"video": "a.mp4", "keyframes": {8: "k.png"}}, "extend"),
        ({"video": "a.mp4", "mask": "m.png"}, "inpaint"),
        ({"video": "a.mp4", "mask": "m.png", "references": ["r.png"]}, "inpaint"),
        ({"references": ["r.png"]}, "r2v"),
        ({"image": "a.png", "references": ["r.png"]}, "i2v"),
        ({"keyframes": {0: "k.png"}}, "i2v"),
    ],
)
def test_the_task_follows_from_the_inputs(inputs: dict[str, str], task: str) -> None:
    assert VideoRequest.checked(prompt="x", **inputs).task == task


@lenient
@given(
    st.fixed_dictionaries(
        {
            "prompt": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=99).map(
                lambda t: "x" + t
            )
        },
        optional={
            "negative": st.text("abc é", max_size=30),
            "size": st.tuples(st.integers(16, 8192), st.integers(16, 8192)),
            "frames": st.integers(1, MAX_FRAMES),
            "fps": st.floats(1, 120),
            "steps": st.integers(0, 200),
            "guidance": st.floats(0, 50),
            "seed": st.integers(0, MAX_SEED),
            "image": st.sampled_from(["a.png", "folder/ä b.png"]).map(Path),
            "output": st.just(Path("out/clip.mp4")),
            "tier": st.sampled_from(["preview", "standard", "premium", "auto"]),
            "references": st.lists(st.sampled_from(["a.png", "ä b.png"]), max_size=8),
            "keyframes": st.dictionaries(
                st.integers(0, MAX_FRAMES - 1), st.just(Path("k.png")), max_size=4
            ),
            "loras": st.lists(
                st.builds(
                    LoraRequest,
                    name=st.sampled_from(["film-look", "owner/repo:a.safetensors", "./x"]),
                    weight=st.floats(-2, 2),
                ),
                max_size=4,
            ),
            "preset": st.sampled_from(["four-steps", "turbo"]),
            "acceleration": st.sampled_from(["lossless", "balanced", "fast"]),
            "candidates": st.integers(1, 16),
            "cache": st.sampled_from(["use", "bypass"]),
        },
    )
)
def test_json_builds_the_same_request_again(values: dict[str, Any]) -> None:
    request = VideoRequest.checked(**values)
    data = json.loads(json.dumps(request.model_dump(mode="json"), allow_nan=False))
    assert VideoRequest.checked(**data) == request
    assert VideoRequest.model_validate_json(request.model_dump_json()) == request


@lenient
@given(
    st.dictionaries(
        st.sampled_from(list(VideoRequest.model_fields)),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=20),
            st.binary(),
            st.lists(st.integers(), max_size=3),
            st.dictionaries(st.text(), st.none(), max_size=1),
        ),
    )
)
def test_nonsense_is_a_named_error_and_never_another(values: dict[str, Any]) -> None:
    try:
        request = VideoRequest.checked(**values)
    except InvalidRequest as error:
        told = json.loads(json.dumps(error.as_dict(), allow_nan=False))
    else:
        told = None
        assert VideoRequest.checked(**request.model_dump()) == request
    assert told is None or told["problems"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("references", "r.png"),
        ("references", ["a"] * 8),
        ("keyframes", {0: "a.png", 24: Path("b.png")}),
        ("keyframes", [(24, "b.png"), [0, "a.png"]]),
        ("keyframes", ["24=b.png", "0=a=b.png"]),
        ("loras", "film-look:0.8"),
        ("loras", ["film-look", {"name": "b", "weight": 0.5}, LoraRequest(name="c")]),
    ],
)
def test_several_things_may_be_given_in_every_way_that_is_plain(name: str, value: Any) -> None:
    request = VideoRequest.checked(prompt="x", **{name: value})
    data = json.loads(json.dumps(request.model_dump(mode="json"), allow_nan=False))
    assert VideoRequest.checked(**data) == request
    assert getattr(request, name)


def test_keyframes_are_in_the_order_of_their_frames() -> None:
    request = VideoRequest.checked(keyframes=["24=b.png", "0=a=b.png"])
    assert request.keyframes == ((0, Path("a=b.png")), (24, Path("b.png")))


def test_loras_as_text() -> None:
    request = VideoRequest.checked(prompt="x", loras=["film-look:0.8", "o/r:f.safetensors"])
    assert [(x.name, x.weight) for x in request.loras] == [
        ("film-look", 0.8),
        ("o/r:f.safetensors", 1.0),
    ]


@pytest.mark.parametrize("name", ["references", "keyframes", "loras"])
@pytest.mark.parametrize("value", [None, (), [], {}])
def test_none_of_several_things_is_none(name: str, value: Any) -> None:
    assert getattr(VideoRequest.checked(prompt="x", **{name: value}), name) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask", ""),
        ("references", 5),
        ("references", ["a"] * 9),
        ("references", ["a", ""]),
        ("references", ["a", 7]),
        ("keyframes", "24"),
        ("keyframes", ["24"]),
        ("keyframes", ["x=a.png"]),
        ("keyframes", ["-1=a.png"]),
        ("keyframes", ["1.5=a.png"]),
        ("keyframes", ["3=a.png", "3=b.png"]),
        ("keyframes", ["3="]),
        ("keyframes", [(1, "a.png", 2)]),
        ("keyframes", {10**9: "a.png"}),
        ("keyframes", {True: "a.png"}),
        ("keyframes", dict.fromkeys(range(33), "a.png")),
        ("loras", ""),
        ("loras", ["a"] * 9),
        ("loras", ["a:9"]),
        ("loras", [{"name": "a", "weight": 3}]),
        ("loras", [{"name": "a", "strength": 1}]),
        ("loras", [{"weight": 1}]),
        ("loras", [5]),
        ("preset", ""),
        ("preset", 5),
        ("acceleration", "fastest"),
        ("acceleration", None),
        ("candidates", 0),
        ("candidates", 17),
        ("candidates", "3"),
        ("candidates", None),
        ("cache", "never"),
        ("cache", None),
        ("cache", True),
    ],
)
def test_what_cannot_be_asked_for_is_a_named_mistake(name: str, value: Any) -> None:
    values = {"prompt": "x", name: value} | ({"video": "v.mp4"} if name == "mask" else {})
    found = problems(**values)
    assert set(found) == {name}
    assert found[name].allowed


def test_the_nearest_value_is_named() -> None:
    assert problems(prompt="x", candidates=17)["candidates"].nearest == 16
    assert problems(prompt="x", acceleration="fastest")["acceleration"].nearest == "fast"
    assert problems(prompt="x", cache="bypas")["cache"].nearest == "bypass"
    assert problems(prompt="x", loras=["a:9"])["loras"].nearest == "a:2"


def test_what_contradicts_itself_is_refused() -> None:
    assert set(problems(prompt="x", mask="m.png")) == {"mask"}
    assert set(problems(prompt="x", image="a.png", mask="m.png")) == {"mask"}
    both = problems(prompt="x", video="v.mp4", mask="m.png", image="a.png")
    assert "made anew" in both["image"].allowed
    assert set(problems(references=["r.png"])) == {"prompt"}
