"""What ComfyUI answers, as recorded from its sources, and what it means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.backends.comfyui.failures import lacking, of_dropped, of_execution, of_prompt
from kinoloom.backends.comfyui.object_info import Missing
from kinoloom.backends.comfyui.server import Answer, refusal
from kinoloom.errors import Cancelled, ErrorKind, InvalidRequest, KinoloomError, RateLimited

URL = "http://127.0.0.1:8188"


def fault(kind: str, message: str, details: str, **extra: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def node(class_type: str, *faults: dict[str, Any], outputs: tuple[str, ...] = ("9",)) -> Any:
    return {"errors": list(faults), "dependent_outputs": list(outputs), "class_type": class_type}


def refused(error: Any, node_errors: Any = None) -> KinoloomError:
    return of_prompt(Answer(400, {"error": error, "node_errors": node_errors or {}}), URL)


FAILED = fault("prompt_outputs_failed_validation", "Prompt outputs failed validation", "")


@pytest.mark.parametrize(
    ("exception", "message", "kind"),
    [
        ("torch.OutOfMemoryError", "Allocation on device ", "insufficient_vram"),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to", "insufficient_vram"),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 18 GB)", "insufficient_vram"),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp] not enough memory", "insufficient_vram"),
        ("RuntimeError", "HIP out of memory. Tried to allocate 2 GiB", "insufficient_vram"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'x'", "model_not_found"),
        ("Exception", "Model wan.safetensors not found.", "model_not_found"),
        ("safetensors_rust.SafetensorError", "Error while deserializing", "model_broken"),
        ("RuntimeError", "ERROR: Could not detect model type of: x.ckpt", "model_broken"),
        ("_pickle.UnpicklingError", "invalid load key, '<'.", "model_broken"),
        ("OSError", "[Errno 28] No space left on device", "worker_unavailable"),
        ("RuntimeError", "CUDA error: device-side assert triggered", "worker_unavailable"),
        ("ValueError", "Expected 5 channels", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_what_a_node_raised(exception: str, message: str, kind: str) -> None:
    error = of_execution(
        {
            "prompt_id": "p",
            "node_id": "3",
            "node_type": "KSampler",
            "exception_type": exception,
            "exception_message": message,
            "traceback": ["..."],
        }
    )
    assert error.kind == kind
    assert "in the node KSampler" in error.cause
    assert error.details == {"node": "3", "node_type": "KSampler"}
    assert error.hints


def test_memory_says_what_to_change() -> None:
    error = of_execution({"exception_type": "torch.OutOfMemoryError"})
    assert "fewer frames" in error.hints[0]
    assert any("--lowvram" in hint for hint in error.hints)


def test_a_stopped_node_is_a_cancel() -> None:
    stopped = "comfy.model_management.InterruptProcessingException"
    assert isinstance(of_execution({"exception_type": stopped}), Cancelled)


@pytest.mark.parametrize(
    "data", [{}, {"exception_message": ["x"], "node_type": None, "node_id": {}}]
)
def test_an_error_of_no_form_is_an_error_still(data: dict[str, Any]) -> None:
    assert of_execution(data).kind is ErrorKind.UNKNOWN


def test_a_file_that_is_not_there() -> None:
    details = "unet_name: 'wan.safetensors' not in ['a.safetensors']"
    error = refused(
        FAILED,
        {
            "4": node(
                "UNETLoader",
                fault(
                    "value_not_in_list",
                    "Value not in list",
                    details,
                    input_name="unet_name",
                    input_config=None,
                    received_value="wan.safetensors",
                ),
            )
        },
    )
    assert error.kind is ErrorKind.MODEL_NOT_FOUND
    assert error.details["server"] == URL
    assert error.details["missing"] == [
        {
            "what": "file",
            "name": "unet_name",
            "wanted": ["wan.safetensors"],
            "folder": "diffusion_models",
        }
    ]
    assert "models/diffusion_models" in error.hints[0]
    assert details in error.cause


def test_a_file_of_a_node_that_nobody_knows() -> None:
    wrong = fault(
        "value_not_in_list", "Value not in list", "x", input_name="m", received_value="a.gguf"
    )
    error = refused(FAILED, {"4": node("UnetLoaderGGUF", wrong)})
    assert error.kind is ErrorKind.MODEL_NOT_FOUND
    assert error.details["missing"][0]["folder"] == ""


def test_a_choice_that_is_no_file_is_a_mistake() -> None:
    wrong = fault(
        "value_not_in_list",
        "Value not in list",
        "sampler_name: 'eulr' not in (list of length 40)",
        input_name="sampler_name",
        received_value="eulr",
    )
    error = refused(FAILED, {"3": node("KSampler", wrong)})
    assert isinstance(error, InvalidRequest)
    assert "KSampler (3)" in error.cause
    assert "eulr" in error.cause


@pytest.mark.parametrize(
    "kind",
    [
        "required_input_missing",
        "value_smaller_than_min",
        "value_bigger_than_max",
        "invalid_input_type",
        "return_type_mismatch",
        "bad_linked_input",
        "custom_validation_failed",
        "dependency_cycle",
        "invalid_dynamic_input",
        "exception_during_validation",
        "exception_during_inner_validation",
    ],
)
def test_other_mistakes_of_nodes(kind: str) -> None:
    error = refused(FAILED, {"3": node("KSampler", fault(kind, "Some words", "steps: 0"))})
    assert isinstance(error, InvalidRequest)
    assert "Some words: steps: 0" in error.cause


@pytest.mark.parametrize(
    "error",
    [
        fault(
            "missing_node_type",
            "Node 'Combine' not found. The custom node may not be installed.",
            "Node ID '#9'",
            node_id="9",
            class_type="VHS_VideoCombine",
            node_title="Combine",
        ),
        fault(
            "invalid_prompt",
            "Cannot execute because node VHS_VideoCombine does not exist.",
            "Node ID '#9'",
        ),
    ],
)
def test_a_node_that_is_not_there(error: dict[str, Any]) -> None:
    found = refused(error)
    assert found.kind is ErrorKind.MODEL_NOT_FOUND
    assert found.details["missing"][0]["name"] == "VHS_VideoCombine"
    assert "VHS_VideoCombine" in found.hints[0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (fault("prompt_no_outputs", "Prompt has no outputs", ""), "saves nothing"),
        (fault("no_prompt", "No prompt provided", ""), "cannot read the workflow"),
        ("no prompt", "refuses a value"),
        (None, "refuses a value"),
        (7, "refuses a value"),
    ],
)
def test_mistakes_of_the_whole_prompt(error: Any, message: str) -> None:
    found = refused(error)
    assert isinstance(found, InvalidRequest)
    assert message in found.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication"),
        (403, "forbidden"),
        (404, "not_found"),
        (413, "too_large"),
        (429, "rate_limited"),
        (500, "worker_unavailable"),
        (502, "worker_unavailable"),
        (418, "unknown"),
    ],
)
def test_statuses(status: int, kind: str) -> None:
    answer = Answer(status, None, "<html>words</html>")
    for error in (refusal(answer), of_prompt(answer, URL)):
        assert error.kind == kind
        assert "words" in error.cause
    limited = refusal(Answer(429, None, retry_after=7.5))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == 7.5


def test_dropped_outputs_count_where_they_save_something() -> None:
    graph = {
        "8": {"class_type": "PreviewImage", "inputs": {}},
        "9": {"class_type": "SaveVideo", "inputs": {}},
    }
    wrong = fault("required_input_missing", "Required input is missing", "images")
    assert of_dropped({}, graph, URL) is None
    assert of_dropped([], graph, URL) is None
    shown = {"8": node("PreviewImage", wrong, outputs=("8",))}
    assert of_dropped(shown, graph, URL) is None
    saved = of_dropped({"9": node("SaveVideo", wrong, outputs=("9",))}, graph, URL)
    assert isinstance(saved, InvalidRequest)
    assert "SaveVideo (9)" in saved.cause


def test_what_no_server_has_is_listed_by_server() -> None:
    error = lacking(
        {
            "http://a": [Missing("file", "vae", ("x.safetensors",), "vae")],
            "http://b": [Missing("node", "SaveVideo", ("update ComfyUI",))],
        }
    )
    assert error.cause.splitlines()[0].startswith("http://a lacks a file for vae: x.safetensors")
    assert "models/vae" in error.cause
    assert [m["server"] for m in error.details["missing"]] == ["http://a", "http://b"]
    assert len(error.hints) == 2


def test_secrets_and_novels_are_not_passed_on() -> None:
    long = "x " * 5000 + "Bearer abcdefghijkl"
    error = of_execution({"exception_message": long, "exception_type": "ValueError"})
    assert len(error.cause) < 600
    assert "abcdefghijkl" not in error.cause


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.just("value_not_in_list"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["errors", "type", "message", "extra_info", "received_value", "3"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(error=_JSON, node_errors=_JSON)
def test_every_refusal_is_an_error_of_ours(error: Any, node_errors: Any) -> None:
    found = of_prompt(Answer(400, {"error": error, "node_errors": node_errors}), URL)
    assert found.kind in (ErrorKind.INVALID_PARAMS, ErrorKind.MODEL_NOT_FOUND)
    assert found.hints
    of_dropped(node_errors, {}, URL)
    assert of_execution({"exception_message": error, "node_type": node_errors}).hints
