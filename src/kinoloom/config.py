"""Where does Kinoloom keep its things, and what does this user prefer?

Settings come from, the later the stronger: the defaults, ``kinoloom.yaml`` (the one in the current
folder, else the one in the user's configuration folder), the environment (``KINOLOOM_HOME``,
``KINOLOOM_DEVICE``, ... one for each field, ``KINOLOOM_BUDGETS__DAY`` for one in a section) and the
flags of a command. Here is what may be set; `config_load` brings it together.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from kinoloom.config_sections import (
    Address,
    BackendsSettings,
    BudgetSettings,
    FallbackSettings,
    Prefer,
    RewordSettings,
    expanded,
)

FILE_NAME = "kinoloom.yaml"

DType = Literal["auto", "float32", "float16", "bfloat16"]
_DEVICES = ("auto", "cpu", "cuda", "mps")
_CACHE_OPTIONS = {
    "db",
    "password",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
}


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


def _folders(value: Any) -> Any:
    """A list of folders; as text they are separated as in the variable PATH."""
    if isinstance(value, str):
        value = [part for part in value.split(os.pathsep) if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("no list")
    return tuple(value)


def _bytes(value: Any) -> Any:
    """A number of bytes, or text of a number and its unit (``12GB``), as bytes."""
    if isinstance(value, bool):
        raise ValueError("no size")
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([kmgt]?)(i?)b?", value.strip().lower())
    if found is None:
        raise ValueError("no size")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))


def _cache_url(secret: SecretStr | None) -> SecretStr | None:
    if secret is None:
        return None
    url = urlsplit(secret.get_secret_value())  # ValueError: a bracket too many
    wanted = url.path if url.scheme == "unix" else url.hostname
    if url.scheme not in ("redis", "rediss", "unix") or not wanted:
        raise ValueError("no address of a Redis server")
    if url.scheme != "unix" and not re.fullmatch(r"(/\d{0,9})?", url.path):
        raise ValueError("no database number")
    if url.port == 0 or set(parse_qs(url.query)) - _CACHE_OPTIONS:  # ValueError: no port number
        raise ValueError("no such port or option")
    return secret


def _database_url(secret: SecretStr | None) -> SecretStr | None:
    if secret is None:
        return None
    url = urlsplit(secret.get_secret_value())  # ValueError: a bracket too many
    if url.scheme not in ("postgresql", "postgres") or len(url.path) < 2 or url.port == 0:
        raise ValueError("no address of a PostgreSQL database")
    return secret


def _assets(place: str | None) -> str | None:
    if place is None:
        return None
    if not place.strip() or "\0" in place:
        raise ValueError("empty")
    if "://" in place:
        return place.rstrip("/")
    return str(_folder(Path(place).expanduser()).absolute())


def _words(value: Any) -> Any:
    """A list of words; as text they are separated by commas or spaces."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _origins(words: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers send them. Never ``*``: on a server without keys, any page that the user
    happens to open could read all there is."""
    origins = tuple(word.lower().rstrip("/") for word in words)
    if not all(re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?", o, re.ASCII) for o in origins):
        raise ValueError("no origin")
    return origins


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("kinoloom", appauthor=False))


Folder = Annotated[Path, BeforeValidator(expanded), AfterValidator(_folder)]


class Settings(BaseModel):
    """What a user may set; each description says what is allowed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

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
        examples=["cards"],
    )
    model_roots: Annotated[tuple[Folder, ...], BeforeValidator(_folders)] = Field(
        default=(),
        description="a list of folders with models in diffusers' layout, as in OWNER/NAME or NAME",
        examples=[["~/models"]],
    )
    comfyui: Annotated[Path | None, BeforeValidator(expanded)] = Field(
        default=None,
        description="the folder of ComfyUI, or its extra_model_paths.yaml",
        examples=["~/ComfyUI"],
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto",
        description="auto, cpu, cuda, cuda:0 (or another number) or mps",
        json_schema_extra={"choices": list(_DEVICES)},
    )
    dtype: DType = Field(default="auto", description="auto, float32, float16 or bfloat16")
    memory_budget: Annotated[int | None, Field(gt=0), BeforeValidator(_bytes)] = Field(
        default=None,
        description="how much of the device's memory may be used: 12GB, 500 MB, 8GiB or bytes",
        examples=["12GB"],
    )
    cache_url: Annotated[SecretStr | None, AfterValidator(_cache_url)] = Field(
        default=None,
        description="the address of a Redis server: redis://[user:password@]host[:port][/number],"
        " rediss://... or unix:///path",
        examples=["redis://localhost:6379/0"],
    )
    cache_size: Annotated[int, Field(ge=0), BeforeValidator(_bytes)] = Field(
        default=2 * 1024**3,
        description="how much the cache of embeddings may hold: 2GiB, 500 MB or bytes",
    )
    cache_ttl: Annotated[int, Field(ge=1, le=365 * 86_400)] = Field(
        default=3600,
        description="the seconds after which a Redis server drops what nobody used",
    )
    default_model: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="spark", description="the name of a model card (`kinoloom models list`)"
    )
    database_url: Annotated[SecretStr | None, AfterValidator(_database_url)] = Field(
        default=None,
        description="the address of a PostgreSQL database that several machines share:"
        " postgresql://[user[:password]@]host[:port]/name",
        examples=["postgresql://kinoloom@localhost/kinoloom"],
    )
    assets: Annotated[str | None, AfterValidator(_assets)] = Field(
        default=None,
        description="a folder, or an address such as s3://bucket/folder, where files are kept"
        " by their content",
        examples=["s3://bucket/kinoloom"],
        json_schema_extra={"place": True},
    )
    max_upload: Annotated[int, Field(gt=0), BeforeValidator(_bytes)] = Field(
        default=512 * 1024**2,
        description="the largest file that the server takes: 512MiB, 2 GB or bytes",
    )
    image_urls: bool = Field(
        default=False,
        description="true or false: whether the server fetches pictures from public addresses",
    )
    rate_limit: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=600,
        description="requests a minute that one key may make of the server; 0 for no limit",
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_origins)] = (
        Field(
            default=(),
            description="origins, such as https://studio.example, whose pages may call the server",
            examples=[["https://studio.example"]],
        )
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="what the calls of webhooks are signed with",
        examples=["${KINOLOOM_SECRET:-}"],
    )
    job_timeout: Annotated[int, Field(ge=1, le=30 * 86_400)] = Field(
        default=6 * 3600, description="the seconds that one job may take once it runs"
    )
    worker_ttl: Annotated[float, Field(ge=1, le=3600)] = Field(
        default=60.0,
        description="the seconds without a sign of life after which another worker takes the jobs",
    )
    backends: BackendsSettings = Field(
        default=BackendsSettings(), description="what can make clips beside this machine"
    )
    prefer: Prefer = Field(
        default="quality",
        description="quality, speed or cost: what `auto` goes by among what can do a request",
    )
    budgets: BudgetSettings = Field(default=BudgetSettings(), description="what may be spent")
    fallback: FallbackSettings = Field(
        default=FallbackSettings(), description="what happens when a backend fails"
    )
    reword: RewordSettings = Field(
        default=RewordSettings(), description="what happens when a service rejects the words"
    )
    public_url: Address | None = Field(
        default=None,
        description="the address by which services on the internet reach this server, such as"
        " https://studio.example",
        examples=["https://studio.example"],
    )
    history_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        default=90, description="the days that finished jobs are remembered; clips are kept"
    )

    def __hash__(self) -> int:
        """Equal settings have the same; made of a few, as it is asked for often."""
        return hash((self.home, self.outputs, self.models, self.device, self.dtype, self.assets))


_loaded: tuple[object, Settings] | None = None  # and what they were made of


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

    A relative path in a file is relative to that file, elsewhere to the current folder.

    Raises InvalidRequest listing every wrong value at once, each with where it was set.
    """
    global _loaded  # noqa: PLW0603 - one a process
    from kinoloom.config_load import load

    file = settings_file()
    sources = Path.cwd(), file, _written(file), tuple(os.environ.items()), flags
    if _loaded is not None and _loaded[0] == sources:
        return _loaded[1]
    settings = load(file, os.environ, flags).settings
    _loaded = sources, settings
    return settings


def _written(file: Path | None) -> bytes | None:
    """What stands in a settings file, as far as one may go; None where it cannot be read."""
    from kinoloom.config_file import MAX_BYTES

    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError:
        return None
