"""What do a ComfyUI server's complaints mean: about a prompt it was handed, or one that ran?

Which words mean what is data (``remote/errors/comfyui.yaml``); here is found where in an answer the
words stand, and which nodes and files are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from kinoloom.backends.comfyui.object_info import Missing, role_of
from kinoloom.backends.comfyui.server import MARK, Answer, refusal
from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.errors import KinoloomError, ModelNotFound

_MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
_NODE_STEPS = ("update ComfyUI", "install the custom nodes that have it")
_NO_NODE = re.compile(r"node (?P<node>.+) does not exist")
"""How a server of before 2026 says it."""
_MOST = 20


def of_prompt(answer: Answer, server: str) -> KinoloomError:
    """What the refusal of a prompt means; `details.missing` lists nodes and files that lack."""
    if answer.status != 400:
        return refusal(answer)
    data = _object(answer.data)
    said = data.get("error")
    error = {"message": said} if isinstance(said, str) else _object(said)
    code, words = _text(error.get("type")), [_text(error.get("message"))]
    faults = list(_faults(data.get("node_errors")))
    missing = [x for _, fault in faults for x in _files(fault)]
    if node := _absent(code, error):
        missing.append(Missing("node", node, _NODE_STEPS))
    elif missing:
        code = "missing_file"
    words += [line for line, _ in faults[:_MOST]] or [_text(error.get("details"))]
    found = ErrorTable.of("comfyui").error(
        status=400,
        code=code,
        text=" ".join(word for word in words if word),
        details={"server": server} | ({"missing": told(missing)} if missing else {}),
    )
    if missing:
        found.hints = (*dict.fromkeys(x.hint for x in missing), *found.hints)
    return found


def of_dropped(node_errors: object, graph: Mapping[str, Any], server: str) -> KinoloomError | None:
    """What it means that a prompt was accepted with errors; None where its video is made all the
    same. Outputs that only show something (PreviewImage and the like) may be dropped."""
    dropped = {
        str(node)
        for entry in _object(node_errors).values()
        for node in _list(_object(entry).get("dependent_outputs"))
    }
    saved = [n for n in dropped if "Preview" not in _text(_object(graph.get(n)).get("class_type"))]
    if not saved:
        return None
    return of_prompt(Answer(400, {"error": {}, "node_errors": node_errors}), server)


def of_execution(data: Mapping[str, Any]) -> KinoloomError:
    """What an ``execution_error`` means; the node that failed is named."""
    node = _text(data.get("node_type")) or "unknown"
    return ErrorTable.of("comfyui").error(
        status="execution",
        code=_text(data.get("exception_type")),
        text=f"{_text(data.get('exception_message'))} (in the node {node})",
        details={"node": _text(data.get("node_id")), "node_type": node},
    )


def lacking(what: Mapping[str, Iterable[Missing]]) -> ModelNotFound:
    """The error that no server has all that a model needs; `what` is missing, by server."""
    found = [(server, lack) for server, lacks in what.items() for lack in lacks]
    return ModelNotFound(
        "No ComfyUI server has all that this model needs.",
        cause="\n".join(f"{server} {describe(lack)}" for server, lack in found),
        hints=list(dict.fromkeys(lack.hint for _, lack in found)),
        details={"missing": [{"server": url} | x for url, lack in found for x in told([lack])]},
    )


def describe(lack: Missing) -> str:
    """What a server lacks, in words that go on behind its name."""
    return f"lacks {lack}" + (f" (in models/{lack.folder})" if lack.folder else "")


def told(missing: Iterable[Missing]) -> list[dict[str, Any]]:
    """What is missing, JSON-ready."""
    return [asdict(x) | {"wanted": list(x.wanted)} for x in missing]


def _absent(code: str, error: Mapping[str, Any]) -> str:
    """The class of nodes that a server does not have; empty where the error is another one."""
    old = _NO_NODE.search(_text(error.get("message")))
    if code == "missing_node_type":
        return _text(_object(error.get("extra_info")).get("class_type")) or "unknown"
    return old["node"] if code == "invalid_prompt" and old else ""


def _faults(data: object) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each mistake of each node, as a line for people and as it was told."""
    for node, entry in list(_object(data).items())[:_MOST]:
        kind = _text(_object(entry).get("class_type"))
        for fault in _list(_object(entry).get("errors"))[:_MOST]:
            fault = _object(fault)
            said = ": ".join(x for x in (_text(fault.get(k)) for k in ("message", "details")) if x)
            yield f"{kind} ({node}): {said}.", fault | {"class_type": kind}


def _files(fault: Mapping[str, Any]) -> list[Missing]:
    """The model file that a mistake is about, if it is about one."""
    about = _object(fault.get("extra_info"))
    value, name = about.get("received_value"), _text(about.get("input_name"))
    if fault.get("type") != "value_not_in_list" or not isinstance(value, str):
        return []
    role = role_of(f"{MARK} {fault.get('class_type')}.{name}")
    folder = role.folder if role is not None else ""
    if not folder and not value.lower().endswith(_MODEL_FILES):
        return []
    return [Missing("file", name, (shown(value),), folder)]


def _object(data: object) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: object) -> list[Any]:
    return data if isinstance(data, list) else []


def _text(data: object) -> str:
    return shown(str(data)) if isinstance(data, str | int) else ""
