"""What stands in a settings file, and on which line?

A value is kept as the text that is written there, and its setting says what that text means. So
``0.10`` stays exactly that, ``yes`` is true where something is true or false and a word where it is
a word, and a value means the same in the file as in an environment variable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kinoloom.errors import InvalidRequest, Problem

if TYPE_CHECKING:
    import yaml

# A settings file is a page of text; a larger one is some other file.
MAX_BYTES = 1_000_000
# Far deeper than any section lies, and not so deep that following it needs much of the stack.
MAX_DEPTH = 32
# An alias repeats what it names, and one of aliases of aliases more than any memory holds.
MAX_VALUES = 20_000

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("str", "int", "float", "bool", "timestamp", "value", "merge")}


@dataclass(frozen=True)
class Written:
    """A value and the line, from 1, of it or of its key: text, None (left empty), entries by their
    key, or items."""

    line: int
    value: str | dict[str, Written] | tuple[Written, ...] | None


def read(file: Path) -> tuple[Written, list[Problem]]:
    """The mapping in a settings file, and the keys that stand in it twice.

    An empty file is an empty mapping. Raises InvalidRequest for what is no such file.
    """
    import yaml

    text = _text(file)
    # The parser in C is ten times as fast; it comes with PyYAML's wheels.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            # Looked at first, as composing goes down a level of the stack for each.
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else None
                _refuse(file, line, "nested too deep")
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(file, mark.line + 1 if mark else 1, _reason(error))
    except yaml.reader.ReaderError as error:
        _refuse(file, text.count("\n", 0, error.position) + 1, "a character that YAML has not")
    if node is None or node.tag == _TAG + "null":
        return Written(1, {}), []
    if not isinstance(node, yaml.MappingNode):
        _refuse(file, node.start_mark.line + 1, "no lines of `key: value`")
    reader = _Reader(file)
    return reader.written(node, node.start_mark.line + 1, ()), reader.twice


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(
            [Problem(str(file), error.strerror or str(error), "a readable file")],
            message=f"The settings file {file} cannot be used.",
            hints=["Correct the file, or move it away to use the defaults."],
        ) from error
    if len(raw) > MAX_BYTES:
        _refuse(file, None, f"a size of more than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        _refuse(file, raw.count(b"\n", 0, error.start) + 1, "bytes that are not UTF-8")


def _refuse(file: Path, line: int | None, reason: str) -> NoReturn:
    place = f"line {line}" if line is not None else "the file"
    raise InvalidRequest(
        [Problem(place, reason, "YAML in UTF-8: lines of `key: value`")],
        message=f"The settings file {file} cannot be used.",
        hints=["Correct the file, or move it away to use the defaults."],
    ) from None


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = error.problem or error.context or "not YAML"
    return "a tab; lines are indented with spaces" if "\\t" in reason or "\t" in reason else reason


class _Reader:
    """Turns YAML's nodes into what is written, and counts them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._count = 0
        self.twice: list[Problem] = []

    def written(self, node: yaml.Node, line: int, keys: tuple[str, ...]) -> Written:
        """A node below these keys."""
        import yaml

        self._count += 1
        if len(keys) > MAX_DEPTH or self._count > MAX_VALUES:
            _refuse(self._file, line, "more values than any settings have; look at its aliases")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Written(line, self._entries(node, keys))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = [self.written(n, n.start_mark.line + 1, (*keys, "-")) for n in node.value]
            return Written(line, tuple(items))
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null":
            return Written(line, None)
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return Written(line, node.value)
        _refuse(self._file, node.start_mark.line + 1, f"a value of the kind {node.tag}")

    def _entries(self, node: yaml.MappingNode, keys: tuple[str, ...]) -> dict[str, Written]:
        import yaml

        merged: dict[str, Written] = {}
        own: dict[str, Written] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                _refuse(self._file, line, "a key that is no word")
            if key.tag == _TAG + "merge":
                for entries in self._merged(value, line, keys):
                    merged = entries | merged  # the first of several counts
            elif key.value in own:
                first = f"there once; line {own[key.value].line} has it already"
                name = ".".join((*keys, key.value))
                where = f"{name} in {self._file}, line {line}"
                self.twice.append(Problem(where, "a second time", first))
            else:
                own[key.value] = self.written(value, line, (*keys, key.value))
        return merged | own

    def _merged(
        self, node: yaml.Node, line: int, keys: tuple[str, ...]
    ) -> Iterator[dict[str, Written]]:
        """The mappings that ``<<`` names: one, or a list of them."""
        import yaml

        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            found = self.written(part, line, (*keys, "<<")).value
            if not isinstance(found, dict):
                _refuse(self._file, line, "a `<<` that names no mapping")
            yield found
