"""Where does Kinoloom keep its things, and what does this user prefer?

Settings come from, the later the stronger: the defaults, ``kinoloom.yaml`` (the one in the current
folder, else the one in the user's configuration folder), the environment (``KINOLOOM_HOME``,
``KINOLOOM_DEVICE``, ... one for each field) and the flags of a command.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kinoloom.errors import InvalidRequest, Problem, nearest_names

FILE_NAME = "kinoloom.yaml"
ENVIRONMENT_PREFIX = "KINOLOOM_"
# A settings file is a page of text; a larger one is some other file.
MAX_FILE_BYTES = 1_000_000

DType = Literal["auto", "float32", "float16", "bfloat16"]
_DEVICES = ("auto", "cpu", "cuda", "mps")


def _path(value: Any) -> Any:
    """A path with ``~`` expanded; text without any characters is no path."""
    if isinstance(value, str | Path):
        if not str(value).strip() or "\0" in str(value):
            raise ValueError("empty")
        return Path(value).expanduser()
    return value


def _folder(path: Path) -> Path:
    try:
        in_the_way = path.exists() and not path.is_dir()
    except OSError as error:  # a name longer than any file system takes, for one
        raise ValueError(error.strerror or "unusable") from error
    if in_the_way:
        raise ValueError("a file is there")
    return path


def _device(name: str) -> str:
    if not re.fullmatch(rf"({'|'.join(_DEVICES)})|cuda:\d{{1,3}}", name):
        raise ValueError("no such device")
    return name


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("kinoloom", appauthor=False))


Folder = Annotated[Path, BeforeValidator(_path), AfterValidator(_folder)]


class Settings(BaseModel):
    """What a user may set; each description says what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    home: Annotated[Folder, AfterValidator(Path.absolute)] = Field(
        default_factory=_default_home,
        description="a folder, where the store of clips and assets is kept",
    )
    outputs: Folder = Field(
        default=Path("outputs"),
        description="a folder, where videos are written when no --output is given",
    )
    models: Folder = Field(
        default_factory=lambda data: data.get("home", Path()) / "cards",
        description="a folder, where your own model cards are",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto",
        description="auto, cpu, cuda, cuda:0 (or another number) or mps",
    )
    dtype: DType = Field(default="auto", description="auto, float32, float16 or bfloat16")
    default_model: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="spark", description="the name of a model card (`kinoloom models list`)"
    )


def settings_file() -> Path | None:
    """The ``kinoloom.yaml`` that counts: the current folder's, else the user's, else None."""
    import platformdirs

    user = Path(platformdirs.user_config_dir("kinoloom", appauthor=False))
    for file in (Path.cwd() / FILE_NAME, user / FILE_NAME):
        if file.exists():
            return file
    return None


def load_settings(**flags: Any) -> Settings:
    """The settings that hold here and now; ``flags`` that are None count as not given.

    A relative folder in a file is relative to that file, elsewhere to the current folder.

    Raises InvalidRequest listing every wrong value at once, each with where it was set.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []

    file = settings_file()
    if file is not None:
        for key, value in _read(file).items():
            if key in Settings.model_fields:
                values[key] = _relative_to(file.parent, key, value)
                origins[key] = f"{key} in {file}"
            else:
                problems.append(_unknown(f"{key} in {file}", str(key), value))
    for key in Settings.model_fields:
        variable = ENVIRONMENT_PREFIX + key.upper()
        if text := os.environ.get(variable, ""):
            values[key], origins[key] = text, f"the environment variable {variable}"
    for key, value in flags.items():
        if key not in Settings.model_fields:
            problems.append(_unknown(key, key, value))
        elif value is not None:
            values[key], origins[key] = value, f"--{key.replace('_', '-')}"

    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += _problems(error, origins)
    else:
        if not problems:
            return settings
    raise InvalidRequest(
        problems,
        message="The settings cannot be used.",
        hints=["Correct or remove what is named above, then run the command again."],
    )


def _read(file: Path) -> dict[str, Any]:
    """The mapping in a settings file; an empty file is an empty mapping."""
    import yaml

    def unusable(field: str, value: Any, allowed: str) -> InvalidRequest:
        return InvalidRequest(
            [Problem(field, value, allowed)],
            message=f"The settings file {file} cannot be used.",
            hints=["Correct the file, or move it away to use the defaults."],
        )

    names = ", ".join(Settings.model_fields)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise unusable(
                "the file's size", file.stat().st_size, f"at most {MAX_FILE_BYTES} bytes"
            )
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unusable(str(file), error.strerror or str(error), "a readable file") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        raise unusable(place, error.problem or "not YAML", "YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: not UTF-8, or a date that is none.
        raise unusable("the file", str(error).partition("\n")[0], "YAML in UTF-8") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise unusable("the file", content, f"lines of `key: value` with the keys {names}")
    return content


def _relative_to(folder: Path, key: str, value: Any) -> Any:
    """A relative folder from a settings file as seen from where that file lies."""
    if key not in ("home", "outputs", "models") or not isinstance(value, str) or not value.strip():
        return value
    path = Path(value).expanduser() if "\0" not in value else Path(value)
    return path if path.is_absolute() else folder / path


def _unknown(where: str, key: str, value: Any) -> Problem:
    names = list(Settings.model_fields)
    near = nearest_names(key, names, count=1)
    return Problem(where, value, "one of " + ", ".join(names), near[0] if near else None)


def _problems(error: ValidationError, origins: dict[str, str]) -> list[Problem]:
    """One problem for each field that pydantic refused, in the words of its description."""
    problems = []
    for detail in error.errors(include_url=False, include_context=False):
        if detail["type"] == "default_factory_not_called":
            continue  # only follows from the mistake in another field
        key = str(detail["loc"][0])
        value = detail["input"]
        choices = {"device": _DEVICES, "dtype": get_args(DType)}.get(key, ())
        near = nearest_names(str(value), choices, count=1)
        problems.append(
            Problem(
                origins.get(key, key),
                str(value) if isinstance(value, Path) else value,
                Settings.model_fields[key].description or "",
                near[0] if near else None,
            )
        )
    return problems
