from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.backends.comfyui.events import MAX_PREVIEW, Reader, Watch, samplers

JPEG = b"\xff\xd8\xff\xe0 picture"
PNG = b"\x89PNG\r\n\x1a\n picture"
Say = Callable[..., None]


@pytest.fixture
def watch() -> Watch:
    return Watch({"3": 10, "7": 10})


@pytest.fixture
def reader(watch: Watch) -> Reader:
    return Reader({"p": watch}.get, lambda: 5.0)


@pytest.fixture
def say(reader: Reader) -> Say:
    def send(event: str, **data: Any) -> None:
        reader.read(json.dumps({"type": event, "data": {"prompt_id": "p"} | data}))

    return send


def preview(kind: int, picture: bytes, about: dict[str, Any] | None = None) -> bytes:
    if about is None:
        return struct.pack(">II", kind, 1) + picture
    words = json.dumps(about).encode()
    return struct.pack(">II", kind, len(words)) + words + picture


def test_nothing_is_known_before_something_is_heard(watch: Watch) -> None:
    assert watch.steps == (0, 20)
    assert watch.heard is None
    assert Watch().steps == (0, 0)


def test_the_steps_of_all_samplers_are_counted(watch: Watch, say: Say) -> None:
    say("execution_start")
    say("executing", node="3")
    say("progress", node="3", value=4, max=10)
    assert watch.steps == (4, 20)
    say("progress", node="3", value=10, max=10)
    say("executing", node="7")
    say("progress", node="7", value=1, max=10)
    assert watch.steps == (11, 20)
    assert (watch.node, watch.heard, watch.ended) == ("7", 5.0, False)


def test_the_server_knows_better_how_many_steps_a_sampler_makes(watch: Watch, say: Say) -> None:
    say("progress", node="3", value=2, max=4)
    assert watch.steps == (2, 14)


def test_a_sampler_that_just_began_says_one_and_is_not_believed(watch: Watch, say: Say) -> None:
    say("progress_state", nodes={"3": {"value": 0.0, "max": 1.0, "state": "running"}})
    assert watch.steps == (0, 20)


def test_the_state_of_all_nodes_at_once(watch: Watch, say: Say) -> None:
    say(
        "progress_state",
        nodes={
            "1": {"value": 1.0, "max": 1.0, "state": "finished"},
            "3": {"value": 10.0, "max": 10.0, "state": "finished"},
            "7": {"value": 5.0, "max": 10.0, "state": "running"},
        },
    )
    assert watch.steps == (15, 20)


def test_a_cached_sampler_is_done(watch: Watch, say: Say) -> None:
    say("execution_cached", nodes=["1", "3"])
    assert watch.steps == (10, 20)


def test_without_known_samplers_every_node_with_steps_counts() -> None:
    watch = Watch()
    reader = Reader({"p": watch}.get, lambda: 1.0)
    for node, value, most in (("a", 3, 8), ("b", 1, 1)):
        data = {"prompt_id": "p", "node": node, "value": value, "max": most}
        reader.read(json.dumps({"type": "progress", "data": data}))
    assert watch.steps == (3, 8)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("executing", {"node": None}),
        ("execution_success", {"timestamp": 1}),
        ("execution_error", {"exception_type": "ValueError"}),
        ("execution_interrupted", {"node_id": "3"}),
    ],
)
def test_every_end_is_one(watch: Watch, say: Say, event: str, data: dict[str, Any]) -> None:
    say("executing", node="3")
    assert not watch.ended
    say(event, **data)
    assert watch.ended


def test_what_is_said_of_other_prompts_is_not_ours(watch: Watch, say: Say) -> None:
    say("executing", node=None, prompt_id="another")
    say("progress", node="3", value=4, max=10, prompt_id="another")
    assert (watch.ended, watch.steps, watch.heard) == (False, (0, 20), None)


def test_a_preview_belongs_to_the_prompt_that_it_names(watch: Watch, reader: Reader) -> None:
    reader.read(preview(4, JPEG, {"prompt_id": "p", "node_id": "3"}))
    assert watch.preview == JPEG
    reader.read(preview(4, JPEG + b"2", {"prompt_id": "another"}))
    assert watch.preview == JPEG


def test_a_plain_preview_belongs_to_what_runs(watch: Watch, reader: Reader, say: Say) -> None:
    reader.read(preview(1, JPEG))
    assert watch.preview is None
    say("executing", node="3")
    reader.read(preview(1, JPEG))
    assert watch.preview == JPEG
    say("executing", node=None)
    reader.read(preview(1, JPEG + b"2"))
    assert watch.preview == JPEG


@pytest.mark.parametrize(
    "message",
    [
        preview(1, PNG),
        preview(1, JPEG + bytes(MAX_PREVIEW)),
        preview(2, JPEG),
        struct.pack(">III", 3, 1, 2) + b"text",
        struct.pack(">II", 4, 2**31) + b'{"prompt_id": "p"}' + JPEG,
        struct.pack(">II", 4, 0) + JPEG,
        preview(4, JPEG, {"prompt_id": ["p"]}),
        b"",
        b"\0\0\0",
        b"\0\0\0\1",
        "",
        "no json",
        "[" * 100_000,
        "7",
        '{"type": 3, "data": {}}',
        '{"type": "progress", "data": []}',
        '{"type": "progress", "data": {"prompt_id": ["p"]}}',
    ],
)
def test_a_message_that_is_not_understood_says_nothing(
    watch: Watch, reader: Reader, say: Say, message: str | bytes
) -> None:
    say("execution_start")
    reader.read(message)
    assert (watch.preview, watch.steps, watch.ended) == (None, (0, 20), False)


@pytest.mark.parametrize("value", [None, "4", float("nan"), float("inf"), -3, [1]])
def test_odd_numbers_are_none(watch: Watch, say: Say, value: object) -> None:
    say("progress", node="3", value=value, max=value)
    assert watch.steps == (0, 20)


def test_what_is_kept_is_bounded(watch: Watch, say: Say) -> None:
    for start in range(0, 10_000, 1000):
        nodes = {f"n{i}": {"value": 1, "max": 2} for i in range(start, start + 1000)}
        say("progress_state", nodes=nodes)
    say("execution_cached", nodes=[f"n{i}" for i in range(10_000)])
    assert len(watch._told) <= 2000
    assert len(watch._done) <= 2000


def test_the_steps_of_a_graph_are_read() -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "UNETLoader", "inputs": {"steps": 99}},
        "3": {"class_type": "KSampler", "inputs": {"steps": 20, "latent_image": ["5", 0]}},
        "4": {
            "class_type": "KSamplerAdvanced",
            "inputs": {"steps": 20, "start_at_step": 0, "end_at_step": 8},
        },
        "5": {
            "class_type": "KSamplerAdvanced",
            "inputs": {"steps": 20, "start_at_step": 8, "end_at_step": 10000},
        },
        "6": {"class_type": "SamplerCustomAdvanced", "inputs": {"sigmas": ["7", 0]}},
        "7": {"class_type": "SplitSigmas", "inputs": {"sigmas": ["8", 0]}},
        "8": {"class_type": "BasicScheduler", "inputs": {"steps": 15}},
        "9": {"class_type": "SamplerCustom", "inputs": {"sigmas": ["9", 0]}},
        "10": {"class_type": "KSampler", "inputs": {"steps": ["1", 0]}},
        "11": {"class_type": "KSamplerSelect", "inputs": {}},
        "12": "no node",
    }
    assert samplers(graph) == {"3": 20, "4": 8, "5": 12, "6": 15}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("p"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
_EVENTS = ("progress", "progress_state", "execution_cached", "executing", "execution_error")


@given(
    event=st.sampled_from(_EVENTS),
    data=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("node", "nodes", "value", "max", "timestamp"), _JSON)
    ),
    tail=st.binary(max_size=40),
)
def test_no_message_breaks_it(event: str, data: dict[str, Any], tail: bytes) -> None:
    watch = Watch({"3": 10})
    reader = Reader({"p": watch}.get, lambda: 1.0)
    reader.read(json.dumps({"type": event, "data": data | {"prompt_id": "p"}}))
    nodes = {"3": data, "4": data.get("value")}
    reader.read(json.dumps({"type": event, "data": {"prompt_id": "p", "nodes": nodes}}))
    for kind in range(5):
        reader.read(struct.pack(">I", kind) + tail)
    step, steps = watch.steps
    assert 0 <= step <= steps


@given(graph=st.dictionaries(st.text(max_size=2), _JSON), inputs=_JSON)
def test_no_graph_breaks_the_counting_of_steps(graph: dict[str, Any], inputs: object) -> None:
    nodes = {"3": {"class_type": "KSampler", "inputs": inputs}, "4": {"class_type": inputs}}
    assert all(steps > 0 for steps in samplers(graph | nodes).values())
