"""What stands in a settings file, or another of YAML, and on which line?

A value is kept as the text that is written there, and its setting says what that text means. So
``0.10`` stays exactly that, ``yes`` is true where something is true or false and a word where it is
a word, and a value means the same in the file as in an environment variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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

_TAG = "tag:yaml.org,2002:"
_PAIR = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)
_PLAIN = {_TAG + name for name in ("str", "int", "float", "bool", "timestamp", "value", "merge")}


@dataclass(frozen=True)
class Written:
    """A value and the line, from 1, of it or of its key: text, None (left empty), entries by their
    key, or items."""

    line: int
    value: str | dict[str, Written] | tuple[Written, ...] | None


def _where(keys: tuple[str | int, ...], file: Path, line: int) -> str:
    return f"{'.'.join(map(str, keys))} in {file}, line {line}"


@dataclass(frozen=True)
class Kind:
    """What a file is in the words of errors: its name, what helps, where a value is; and how many
    values it may hold, since an alias repeats what it names, and one of aliases of aliases more
    than any memory holds."""

    name: str = "settings file"
    hint: str = "Correct the file, or move it away to use the defaults."
    where: Callable[[tuple[str | int, ...], Path, int], str] = _where
    most_values: int = 20_000


SETTINGS = Kind()


def read(file: Path, kind: Kind = SETTINGS) -> tuple[Written, list[Problem]]:
    """The mapping in a file of YAML or JSON, and the keys that stand in it twice.

    An empty file is an empty mapping. Raises InvalidRequest for what is no such file.
    """
    import yaml

    text = _text(file, kind)
    if text.lstrip().startswith("{"):
        # JSON writes a character beyond 16 bits as two escapes, YAML as one.
        text = _PAIR.sub(_as_one, text)
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
                _refuse(file, kind, line, "nested too deep")
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(file, kind, mark.line + 1 if mark else 1, _reason(error))
    except yaml.reader.ReaderError as error:
        _refuse(
            file, kind, text.count("\n", 0, error.position) + 1, "a character that YAML has not"
        )
    if node is None or node.tag == _TAG + "null":
        return Written(1, {}), []
    if not isinstance(node, yaml.MappingNode):
        _refuse(file, kind, node.start_mark.line + 1, "no lines of `key: value`")
    reader = _Reader(file, kind)
    return reader.written(node, node.start_mark.line + 1, ()), reader.twice


def _as_one(found: re.Match[str]) -> str:
    pair = bytes.fromhex(found[2] + found[3])
    return f"{found[1]}\\U{ord(pair.decode('utf-16-be')):08x}"


def _text(file: Path, kind: Kind) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(
            [Problem(str(file), error.strerror or str(error), "a readable file")],
            message=f"The {kind.name} {file} cannot be used.",
            hints=[kind.hint],
        ) from error
    if len(raw) > MAX_BYTES:
        _refuse(file, kind, None, f"a size of more than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        _refuse(file, kind, raw.count(b"\n", 0, error.start) + 1, "bytes that are not UTF-8")


def _refuse(file: Path, kind: Kind, line: int | None, reason: str) -> NoReturn:
    place = f"line {line}" if line is not None else "the file"
    raise InvalidRequest(
        [Problem(place, reason, "YAML in UTF-8: lines of `key: value`")],
        message=f"The {kind.name} {file} cannot be used.",
        hints=[kind.hint],
    ) from None


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = error.problem or error.context or "not YAML"
    return "a tab; lines are indented with spaces" if "\\t" in reason or "\t" in reason else reason


class _Reader:
    """Turns YAML's nodes into what is written, and counts them."""

    def __init__(self, file: Path, kind: Kind) -> None:
        self._file = file
        self._kind = kind
        self._count = 0
        self.twice: list[Problem] = []

    def written(self, node: yaml.Node, line: int, keys: tuple[str | int, ...]) -> Written:
        """A node below these keys."""
        import yaml

        self._count += 1
        if len(keys) > MAX_DEPTH or self._count > self._kind.most_values:
            _refuse(
                self._file, self._kind, line, "more values than there can be; look at its aliases"
            )
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Written(line, self._entries(node, keys))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = (
                self.written(item, item.start_mark.line + 1, (*keys, n))
                for n, item in enumerate(node.value)
            )
            return Written(line, tuple(items))
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null":
            return Written(line, None)
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return Written(line, node.value)
        _refuse(self._file, self._kind, node.start_mark.line + 1, f"a value of the kind {node.tag}")

    def _entries(self, node: yaml.MappingNode, keys: tuple[str | int, ...]) -> dict[str, Written]:
        import yaml

        merged: dict[str, Written] = {}
        own: dict[str, Written] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                _refuse(self._file, self._kind, line, "a key that is no word")
            if key.tag == _TAG + "merge":
                for entries in self._merged(value, line, keys):
                    merged = entries | merged  # the first of several counts
            elif key.value in own:
                first = f"there once; line {own[key.value].line} has it already"
                where = self._kind.where((*keys, key.value), self._file, line)
                self.twice.append(Problem(where, "a second time", first))
            else:
                own[key.value] = self.written(value, line, (*keys, key.value))
        return merged | own

    def _merged(
        self, node: yaml.Node, line: int, keys: tuple[str | int, ...]
    ) -> Iterator[dict[str, Written]]:
        """The mappings that ``<<`` names: one, or a list of them."""
        import yaml

        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            found = self.written(part, line, (*keys, "<<")).value
            if not isinstance(found, dict):
                _refuse(self._file, self._kind, line, "a `<<` that names no mapping")
            yield found
