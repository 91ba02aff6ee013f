"""Which value does each setting have, where does it come from, and what is wrong with it?

The file, the environment and the flags become one tree of what was given; of two values for a
setting the stronger one counts, and a mistake in the other does not. A problem names the setting by
its dotted keys with file and line, and never shows what may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from kinoloom import config_file, config_schema
from kinoloom.config import Settings
from kinoloom.config_file import Written
from kinoloom.config_schema import Keys
from kinoloom.errors import InvalidRequest, Problem, nearest_names

PREFIX = "KINOLOOM_"
HIDDEN = "***"

_VARIABLE = re.compile(
    r"\$(?:(?P<literal>\$\{)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}"
    r"|(?P<broken>\{))"
)


_KEY_LIKE = re.compile(r"[\w-]{16,}")


@dataclass(frozen=True)
class Given:
    """A value that somebody gave: as it was written, and where."""

    value: Any
    where: str
    file: Path | None = None
    line: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Where it comes from, as JSON-ready data."""
        file = None if self.file is None else str(self.file)
        return {"where": self.where, "file": file, "line": self.line}


@dataclass(frozen=True)
class Loaded:
    """The settings, and where each that was given comes from, by its keys."""

    settings: Settings
    given: Mapping[Keys, Given]


def load(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Loaded:
    """The settings by a file, the environment and flags, the later the stronger.

    Raises InvalidRequest listing every mistake at once.
    """
    loading = _Loading(environment)
    if file is not None:
        loading.take_file(file)
    loading.take_environment()
    loading.take_flags(flags or {})
    return loading.loaded()


def dotted(keys: Keys) -> str:
    """A setting's name, ``backends.runway.api_key``; the items of a list count from 0."""
    return ".".join(map(str, keys))


def variable(keys: Keys) -> str:
    """The environment variable that sets a setting."""
    return PREFIX + "__".join(map(str, keys)).upper()


def without_secrets(text: str) -> str:
    """Text as it may be shown: of an address, user, password and query are left out."""
    if "://" not in text and "@" not in text:
        return text
    # Bluntly all that may belong to them, since a mistyped address can be cut anywhere.
    text = re.sub(r".*@", f"{HIDDEN}@", text, flags=re.DOTALL)
    return re.sub(r"(\?|#|password).*", rf"\1{HIDDEN}", text, flags=re.DOTALL)


class _Loading:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._given: dict[Keys, Given] = {}
        self._sections: list[Keys] = []
        self._around: dict[Keys, Given] = {}  # where a file's sections begin, and items of lists
        self._problems: list[Problem] = []

    def take_file(self, file: Path) -> None:
        """What stands in a settings file."""
        written, twice = config_file.read(file)
        self._problems += twice
        self._take_written((), written, file)

    def take_environment(self) -> None:
        """KINOLOOM_DEVICE, and KINOLOOM_BUDGETS__DAY for a setting in a section."""
        for name in sorted(name for name in self._environment if name.startswith(PREFIX)):
            text = self._environment[name]
            keys: Keys = tuple(name.removeprefix(PREFIX).lower().split("__"))
            # A variable that only looks like one of ours may be for another program.
            if name != variable(keys) or not text:
                continue
            if keys[0] not in Settings.model_fields:
                continue
            given = Given(text, f"the environment variable {name}")
            if config_schema.annotation_at(keys) is None:
                known = next(
                    keys[:n]
                    for n in range(len(keys), -1, -1)
                    if config_schema.annotation_at(keys[:n]) is not None
                )
                self._unknown(known, str(keys[len(known)]) if len(keys) > len(known) else "", given)
            else:
                self._set(keys, given)

    def take_flags(self, flags: Mapping[str, Any]) -> None:
        """What a command was given; None counts as not given."""
        for name, value in flags.items():
            given = Given(value, f"--{name.replace('_', '-')}")
            if name not in Settings.model_fields:
                self._unknown((), name, Given(value, name))
            elif value is not None:
                self._set((name,), given)

    def loaded(self) -> Loaded:
        """The settings of all that was taken. Raises InvalidRequest."""
        values: dict[str, Any] = {}
        for keys in self._sections:
            self._put(values, keys, None)
        told = {k: given for k, given in self._given.items() if self._put(values, k, given)}
        try:
            settings = Settings(**values)
        except ValidationError as error:
            self._problems += self._refused(error)
        else:
            if not self._problems:
                return Loaded(settings, told)
        raise InvalidRequest(
            sorted(self._problems, key=_place),
            message="The settings cannot be used.",
            hints=["Correct or remove what is named above, then run the command again."],
        )

    def _set(self, keys: Keys, given: Given) -> None:
        """A stronger value takes the place of a weaker one and of all that is below it."""
        for places in (self._given, self._around):
            for known in [k for k in places if k[: len(keys)] == keys]:
                del places[known]
        self._given[keys] = given

    def _take_written(self, keys: Keys, written: Written, file: Path) -> None:
        annotation = config_schema.annotation_at(keys)
        given = Given(_plain(written), self._where(keys, file, written.line), file, written.line)
        if not config_schema.is_section(annotation):
            if written.value is not None:  # left empty, it is not given
                self._given[keys] = given
            for n, item in enumerate(written.value if isinstance(written.value, tuple) else ()):
                where = self._where((*keys, n), file, item.line)
                self._around[(*keys, n)] = Given(_plain(item), where, file, item.line)
            return
        entries = {} if written.value is None else written.value
        if not isinstance(entries, dict):
            self._given[keys] = given
            return
        if keys:
            self._sections.append(keys)
            self._around[keys] = given
        for name, value in entries.items():
            if config_schema.annotation_at((*keys, name)) is None:
                where = self._where((*keys, name), file, value.line)
                self._unknown(keys, name, Given("", where, file, value.line))
            else:
                self._take_written((*keys, name), value, file)

    def _where(self, keys: Keys, file: Path, line: int) -> str:
        return f"{dotted(keys)} in {file}, line {line}"

    def _unknown(self, section: Keys, name: str, given: Given) -> None:
        """A key that there is not. What it was given is not shown: it may be a secret."""
        known = list(config_schema.fields_of(config_schema.annotation_at(section)) or ())
        near = nearest_names(name, known, count=1)
        allowed = "one of " + ", ".join(known) if known else "no key below it"
        self._problems.append(Problem(given.where, HIDDEN, allowed, near[0] if near else None))

    def _put(self, values: dict[str, Any], keys: Keys, given: Given | None) -> bool:
        """Put a value at its place among all values; of None an empty section.

        False where it turns out that there is none: a variable that may be left out, and was.
        """
        *above, last = map(str, keys)
        place: Any = values
        for key in above:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                return False  # what is above it is no section, and is told of
        if given is None:
            place.setdefault(last, {})
            return True
        value = given.value
        if given.file is not None:
            value = self._resolved(keys, given, value)
            if value is None:
                return False
        place[last] = value
        return True

    def _resolved(self, keys: Keys, given: Given, value: Any) -> Any:
        """A file's value with its variables put in, and a path as seen from the file."""
        if isinstance(value, list):
            items = [
                self._resolved((*keys, n), self._around.get((*keys, n), given), v)
                for n, v in enumerate(value)
            ]
            return [item for item in items if item is not None]
        if not isinstance(value, str):
            return value
        text = self._expanded(value, given)
        if value and not text:
            return None
        if given.file is None or not config_schema.is_path(keys):
            return text
        if not text.strip() or "\0" in text or "://" in text:
            return text
        if keys == ("model_roots",):  # as in the variable PATH
            places = [part for part in text.split(os.pathsep) if part.strip()]
            return [str(given.file.parent / Path(place).expanduser()) for place in places]
        return str(given.file.parent / Path(text).expanduser())

    def _expanded(self, text: str, given: Given) -> str:
        """Text with the environment's variables put in; ``$${`` is a plain ``${``."""
        wrong: list[str] = []

        def put(found: re.Match[str]) -> str:
            if found["literal"] is not None:
                return "${"
            name, default = found["name"], found["default"]
            if name is None:
                wrong.append("text in which each ${ belongs to a ${NAME} or ${NAME:-default}")
                return ""
            value = self._environment.get(name, "")
            if not value and default is None:
                wrong.append(
                    f"text whose variables are set, and {name} is not"
                    f" (${{{name}:-}} where it may be left out)"
                )
            return value or default or ""

        result = _VARIABLE.sub(put, text)
        self._problems += [Problem(given.where, text, allowed) for allowed in wrong]
        return result

    def _refused(self, error: ValidationError) -> Iterator[Problem]:
        """One problem for each setting that pydantic refused, in the words of its description."""
        seen: set[Keys] = set()
        told = {problem.field for problem in self._problems}
        for detail in error.errors(include_url=False, include_context=False):
            if detail["type"] == "default_factory_not_called":
                continue  # only follows from the mistake in another field
            keys = self._keys(detail["loc"])
            given = self._nearest(keys)
            where = given.where if given is not None else dotted(keys)
            if keys in seen or (where in told and given is not None):
                continue
            seen.add(keys)
            if detail["loc"][-1] == "[key]":
                allowed = "a name of small letters, digits, dots, _ and -"
                yield Problem(where, keys[-1], allowed)
            elif detail["type"] == "missing":
                yield self._missing(keys, given)
            else:
                yield self._problem(keys, given, where, detail["input"])

    def _keys(self, place: tuple[int | str, ...]) -> Keys:
        """The setting that pydantic means, without the names of a union's members."""
        keys: Keys = ()
        for part in place:
            known = config_schema.annotation_at((*keys, part)) if isinstance(part, str) else None
            if known is None and not isinstance(part, int):
                break
            keys = (*keys, part)
        return keys

    def _nearest(self, keys: Keys) -> Given | None:
        """Who gave a setting, or the section around it."""
        for length in range(len(keys), 0, -1):
            found = self._around.get(keys[:length]) or self._given.get(keys[:length])
            if found is not None:
                return found
        return None

    def _missing(self, keys: Keys, given: Given | None) -> Problem:
        info = config_schema.info_at(keys)
        where = dotted(keys)
        if given is not None and given.file is not None:
            where = self._where(keys, given.file, given.line or 1)
        return Problem(where, None, (info.description if info else None) or "given")

    def _problem(self, keys: Keys, given: Given | None, where: str, value: Any) -> Problem:
        annotation = config_schema.annotation_at(keys)
        info = config_schema.info_at(keys)
        allowed = (info.description if info else None) or "a section"
        if config_schema.is_section(annotation):
            fields = config_schema.fields_of(annotation)
            below = f" with {', '.join(fields)}" if fields else ", each with a name of yours"
            allowed = f"a section{below}: {allowed}" if fields is None else f"a section{below}"
        if config_schema.holds_secret(annotation):
            return Problem(where, HIDDEN, allowed)
        if given is not None and given.file is not None and isinstance(given.value, str):
            value = given.value  # as it is written: what a variable holds may be a secret
        shown = _shown(value)
        beside = config_schema.fields_of(config_schema.annotation_at(keys[:-1])) or {}
        keyed = any(config_schema.holds_secret(field.annotation) for field in beside.values())
        if keyed and len(keys) > 1 and _KEY_LIKE.search(str(shown)):
            shown = HIDDEN  # a key in the place of what is beside it
        near = nearest_names(str(shown), config_schema.choices(keys), count=1)
        return Problem(where, shown, allowed, near[0] if near else None)


def _plain(written: Written) -> Any:
    """What is written as text, lists and mappings."""
    if isinstance(written.value, dict):
        return {key: _plain(value) for key, value in written.value.items()}
    if isinstance(written.value, tuple):
        return [_plain(item) for item in written.value]
    return written.value


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return without_secrets(value) if isinstance(value, str) else _number(value)


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float | None) else without_secrets(str(value))


def _place(problem: Problem) -> tuple[str, int]:
    """Problems of a file in the order of its lines."""
    found = re.search(r" in (.*), line (\d+)$", problem.field)
    return (found[1], int(found[2])) if found else ("", 0)
