"""What does ComfyUI answer to a graph, before anything runs?

`validate` holds a graph against recorded definitions of nodes as ``execution.validate_prompt`` of
ComfyUI does, with its words and shapes (github.com/Comfy-Org/ComfyUI, 0.3.64 and 0.38). The
definitions are in ``comfyui_nodes/``: ``old.json`` and ``new.json``, written by hand after the
sources of ComfyUI, ComfyUI-AnimateDiff-Evolved and ComfyUI-VideoHelperSuite, for the nodes that
matter here, with a few files of each kind.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"

_Errors = list[dict[str, Any]]
_ODD = (KeyError, IndexError, TypeError)
"""What looking at a graph raises in the server, too."""


class Verdict(NamedTuple):
    """What the server finds: `error` (None when something will run), the ids of the nodes that will
    save something, and `node_errors` by node."""

    error: dict[str, Any] | None
    outputs: list[str]
    node_errors: dict[str, Any]


def definitions(version: Literal["old", "new"] = "new") -> dict[str, Any]:
    """What GET /object_info answers, as a copy that may be changed."""
    return copy.deepcopy(_recorded(version))


@cache
def _recorded(version: str) -> dict[str, Any]:
    folder = Path(__file__).with_name("comfyui_nodes")
    found: dict[str, Any] = json.loads((folder / f"{version}.json").read_text(encoding="utf-8"))
    return found


def without(info: dict[str, Any], *names: str) -> dict[str, Any]:
    """Definitions without these nodes, and without these files in any list."""
    left = {node: copy.deepcopy(entry) for node, entry in info.items() if node not in names}
    for entry in left.values():
        for inputs in entry["input"].values():
            for declared in inputs.values():
                options = _options(declared)
                if options is not None:
                    options[:] = [option for option in options if option not in names]
    return left


def validate(
    graph: Mapping[str, Any],
    object_info: Mapping[str, Any],
    *,
    files: Collection[str] = (),
    old: bool = False,
) -> Verdict:
    """What the server finds in a graph.

    `files` are the names in the server's input folder beside those that the definitions list;
    `old` judges as ComfyUI 0.3.64 does: it has other words for a node that it does not know, and
    does not look into lists in the new notation.
    """
    outputs = []
    for name, node in graph.items():
        wrong = _class_error(name, node, object_info, old)
        if wrong is not None:
            return Verdict(wrong, [], {})
        if object_info[node["class_type"]].get("output_node") is True:
            outputs.append(name)
    if not outputs:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs", "", {}), [], {})
    check = _Check(graph, object_info, set(files), old)
    good, reasons = [], []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        try:
            fine = check.of(output, ())
        except _ODD as odd:
            message = "Exception when validating node"
            wrong = _error("exception_during_validation", message, str(odd), _exception(odd))
            fine = check.fail(output, wrong)
        if fine:
            good.append(output)
            continue
        reasons += check.found[output]
        for name, errors in check.found.items():
            if errors:
                class_type = graph[name]["class_type"]
                entry = node_errors.setdefault(
                    name, {"errors": errors, "dependent_outputs": [], "class_type": class_type}
                )
                entry["dependent_outputs"].append(output)
    error = None
    if not good:
        details = "\n".join(f"{e['message']}: {e['details']}" for e in reasons)
        kind, message = "prompt_outputs_failed_validation", "Prompt outputs failed validation"
        error = _error(kind, message, details, {})
    return Verdict(error, good, node_errors)


def _class_error(
    name: str, node: Mapping[str, Any], info: Mapping[str, Any], old: bool
) -> dict[str, Any] | None:
    details = f"Node ID '#{name}'"
    class_type = node.get("class_type")
    if class_type in info:
        return None
    title = node.get("_meta", {}).get("title")
    if old:
        message = f"Cannot execute because node {class_type} does not exist."
        if class_type is None:
            message = "Cannot execute because a node is missing the class_type property."
        return _error("invalid_prompt", message, details, {})
    message = f"Node '{title or class_type}' not found. The custom node may not be installed."
    if class_type is None:
        shown = title or f"ID #{name}"
        message = (
            f"Node '{shown}' has no class_type. The workflow may be corrupted or a custom node is"
            " missing."
        )
    extra = {"node_id": name, "class_type": class_type, "node_title": title or class_type}
    return _error("missing_node_type", message, details, extra)


class _Check:
    """The nodes that were looked at: of each its own mistakes, and whether it can run."""

    def __init__(
        self, graph: Mapping[str, Any], info: Mapping[str, Any], files: set[str], old: bool
    ) -> None:
        self._graph, self._info, self._files, self._old = graph, info, files, old
        self.found: dict[str, _Errors] = {}
        self._fine: dict[str, bool] = {}

    def of(self, name: str, above: tuple[str, ...]) -> bool:
        if name in self._fine:
            return self._fine[name]
        if name in above:
            return self._cycle([*above[above.index(name) :], name])
        node = self._graph[name]
        errors: _Errors = []
        fine = True
        declared = dict(_inputs(self._info[node["class_type"]]["input"], node["inputs"]))
        for given, (entry, required) in declared.items():
            if given not in node["inputs"]:
                if required:
                    message = "Required input is missing"
                    extra = {"input_name": given}
                    errors.append(_error("required_input_missing", message, given, extra))
                continue
            value = node["inputs"][given]
            if isinstance(value, list):
                fine &= self._link(name, given, value, entry, errors, above)
            elif (wrong := self._value(node, given, value, entry)) is not None:
                errors.append(wrong)
        self.found[name] = [*self.found.get(name, []), *errors]
        self._fine[name] = fine and not self.found[name]
        return self._fine[name]

    def fail(self, name: str, error: dict[str, Any]) -> bool:
        """Settle that a node cannot run, for one reason."""
        self.found[name], self._fine[name] = [error], False
        return False

    def _cycle(self, path: list[str]) -> bool:
        names = list(dict.fromkeys(path))
        shown = " -> ".join(f"{n} ({self._graph[n]['class_type']})" for n in path)
        for name in names:
            extra = {"node_id": name, "cycle_nodes": names}
            error = _error("dependency_cycle", "Dependency cycle detected", shown, extra)
            self.found[name] = [error]
        return False

    def _link(
        self,
        name: str,
        given: str,
        value: list[Any],
        entry: list[Any],
        errors: _Errors,
        above: tuple[str, ...],
    ) -> bool:
        """Whether what a link leads to can run; its own mistakes go to `errors`."""
        extra = {"input_name": given, "input_config": entry}
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            extra |= {"received_value": value}
            errors.append(_error("bad_linked_input", message, given, extra))
            return True
        # The server has no words of its own for a link that leads nowhere: this raises, as there.
        received = tuple(self._info[self._graph[value[0]]["class_type"]]["output"])[value[1]]
        wanted = entry[0]
        if not _fits(received, wanted):
            details = f"{given}, received_type({received}) mismatch input_type({wanted})"
            message = "Return type mismatch between linked nodes"
            extra |= {"received_type": received, "linked_node": value}
            errors.append(_error("return_type_mismatch", message, details, extra))
            return True
        try:
            return self.of(value[0], (*above, name))
        except _ODD as error:
            message = "Exception when validating inner node"
            extra |= _exception(error) | {"linked_node": value}
            wrong = _error("exception_during_inner_validation", message, str(error), extra)
            return self.fail(value[0], wrong)

    def _value(
        self, node: Mapping[str, Any], given: str, value: Any, entry: list[Any]
    ) -> dict[str, Any] | None:
        kind, more = entry[0], entry[1] if len(entry) > 1 else {}
        extra = {"input_name": given, "input_config": entry, "received_value": value}
        convert = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(str(kind))
        if convert is not None:
            try:
                value = convert(value)
            except (TypeError, ValueError) as error:
                message = f"Failed to convert an input value to a {kind} value"
                extra |= {"exception_message": str(error)}
                details = f"{given}, {value}, {error}"
                return _error("invalid_input_type", message, details, extra)
        if node["class_type"] == "LoadImage" and given == "image":
            if value in (_options(entry) or []) or value in self._files:
                return None
            details = f"{given} - Invalid image file: {value}"
            message = "Custom validation failed for node"
            return _error("custom_validation_failed", message, details, {"input_name": given})
        if "min" in more and value < more["min"]:
            message = f"Value {value} smaller than min of {more['min']}"
            return _error("value_smaller_than_min", message, given, extra)
        if "max" in more and value > more["max"]:
            message = f"Value {value} bigger than max of {more['max']}"
            return _error("value_bigger_than_max", message, given, extra)
        options = _options(entry)
        unchecked = self._old and entry[0] == "COMBO"  # the new notation was not held to yet
        if options is None or value in options or unchecked:
            return None
        short = len(options) <= 20
        shown = str(options) if short else f"(list of length {len(options)})"
        extra |= {"input_config": entry if short else None}
        said = f"'{value}'" if self._old else repr(value)
        details = f"{given}: {said} not in {shown}"
        return _error("value_not_in_list", "Value not in list", details, extra)


def _inputs(
    declared: Mapping[str, Any], given: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, tuple[list[Any], bool]]]:
    """The inputs that a node has with these values, and whether each is required.

    A choice that brings inputs counts only where it is made; an unknown one counts as not made.
    """
    for section in ("required", "optional"):
        for name, entry in declared.get(section, {}).items():
            full = prefix + name
            if entry[0] != DYNAMIC:
                yield full, (entry, section == "required")
                continue
            for option in entry[1]["options"]:
                if option["key"] == given.get(full):
                    yield full, (entry, section == "required")
                    yield from _inputs(option["inputs"], given, f"{full}.")


def _options(entry: list[Any]) -> list[Any] | None:
    """The list that an input lets one choose from, in either notation."""
    if isinstance(entry[0], list):
        return entry[0]
    more = entry[1] if len(entry) > 1 else {}
    return more.get("options") if entry[0] == "COMBO" else None


def _fits(received: object, wanted: object) -> bool:
    if received == wanted or "*" in (received, wanted):
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool(set(received.split(",")) & set(wanted.split(",")))


def _exception(error: Exception) -> dict[str, Any]:
    kind = type(error).__name__
    return {"exception_message": str(error), "exception_type": kind, "traceback": []}


def _error(kind: str, message: str, details: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra)}
