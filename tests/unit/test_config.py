from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from kinoloom.config import Settings, load_settings, settings_file
from kinoloom.errors import ErrorKind, InvalidRequest


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and user folders, and no KINOLOOM_ variable."""
    for name in list(os.environ):
        if name.startswith("KINOLOOM_"):
            monkeypatch.delenv(name)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    return here


def refusal(**flags: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load_settings(**flags)
    assert caught.value.kind is ErrorKind.INVALID_PARAMS
    return caught.value


def test_defaults(tmp_path: Path) -> None:
    sections = {"backends", "budgets", "fallback", "reword"}
    assert load_settings().model_dump(exclude=sections) == {
        "home": tmp_path / "data",
        "outputs": Path("outputs"),
        "models": tmp_path / "data" / "cards",
        "device": "auto",
        "dtype": "auto",
        "model_roots": (),
        "comfyui": None,
        "memory_budget": None,
        "cache_url": None,
        "cache_size": 2 * 1024**3,
        "cache_ttl": 3600,
        "default_model": "spark",
        "database_url": None,
        "assets": None,
        "max_upload": 512 * 1024**2,
        "image_urls": False,
        "rate_limit": 600,
        "cors_origins": (),
        "webhook_secret": None,
        "job_timeout": 6 * 3600,
        "worker_ttl": 60.0,
        "history_days": 90,
        "prefer": "quality",
        "public_url": None,
    }


def test_nothing_is_spent_or_sent_by_default() -> None:
    settings = load_settings()
    assert not settings.budgets.any
    assert not settings.reword.enabled
    assert not settings.fallback.after_rejection
    assert settings.backends.model_dump()["runway"] == {"api_key": None, "base_url": None}


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().device = "cpu"  # type: ignore[misc]


def test_the_later_source_wins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "kinoloom.yaml").write_text("device: cpu\ndtype: float16\ndefault_model: one\n")
    monkeypatch.setenv("KINOLOOM_DTYPE", "bfloat16")
    monkeypatch.setenv("KINOLOOM_DEFAULT_MODEL", "two")
    settings = load_settings(default_model="three")
    assert (settings.device, settings.dtype, settings.default_model) == ("cpu", "bfloat16", "three")


def test_a_flag_of_none_and_an_empty_variable_are_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KINOLOOM_DEVICE", "cuda:1")
    monkeypatch.setenv("KINOLOOM_DTYPE", "")
    settings = load_settings(device=None)
    assert (settings.device, settings.dtype) == ("cuda:1", "auto")


def test_the_current_folders_file_hides_the_users(tmp_path: Path, place: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "kinoloom.yaml").write_text("device: mps\n")
    assert load_settings().device == "mps"
    (place / "kinoloom.yaml").write_text("# nothing set\n")
    assert settings_file() == place / "kinoloom.yaml"
    assert load_settings().device == "auto"


def test_home_moves_the_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "elsewhere"))
    assert load_settings().models == tmp_path / "elsewhere" / "cards"


def test_folders_in_a_file_are_relative_to_it(tmp_path: Path, place: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "kinoloom.yaml").write_text("outputs: videos\nhome: ~/kino\n")
    settings = load_settings()
    assert settings.outputs == tmp_path / "conf" / "videos"
    assert settings.home == Path("~/kino").expanduser()
    assert load_settings(outputs="videos").outputs == Path("videos")


def test_home_is_absolute(place: Path) -> None:
    assert load_settings(home="data").home == place / "data"


def test_every_mistake_is_listed_with_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "kinoloom.yaml").write_text("devise: cpu\ndtype: 16\n")
    (place / "taken").write_text("")
    monkeypatch.setenv("KINOLOOM_DEVICE", "cudda")
    error = refusal(outputs="taken")
    found = {problem.field: problem for problem in error.problems}
    assert set(found) == {
        f"devise in {place / 'kinoloom.yaml'}, line 1",
        f"dtype in {place / 'kinoloom.yaml'}, line 2",
        "the environment variable KINOLOOM_DEVICE",
        "--outputs",
    }
    assert found["the environment variable KINOLOOM_DEVICE"].nearest == "cuda"
    assert found[f"devise in {place / 'kinoloom.yaml'}, line 1"].nearest == "device"
    assert "float16" in found[f"dtype in {place / 'kinoloom.yaml'}, line 2"].allowed
    assert error.hints


def test_an_overridden_mistake_does_not_count(place: Path) -> None:
    (place / "kinoloom.yaml").write_text("device: nonsense\n")
    assert load_settings(device="cpu").device == "cpu"


@pytest.mark.parametrize("value", ["cuda:", "cuda:x", "CPU", "cpu:0", "cuda:1\n", "", 3])
def test_wrong_devices(value: object) -> None:
    assert [problem.field for problem in refusal(device=value).problems] == ["--device"]


@pytest.mark.parametrize("value", ["cpu", "cuda", "cuda:0", "cuda:15", "mps"])
def test_devices(value: str) -> None:
    assert load_settings(device=value).device == value


@pytest.mark.parametrize("value", ["", "   ", "a\0b", 7, ["x"]])
def test_wrong_folders(value: object) -> None:
    assert [problem.field for problem in refusal(home=value).problems] == ["--home"]


def test_an_unknown_flag_is_refused() -> None:
    assert refusal(colour="red").problems[0].field == "colour"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"device: [cpu\n", "line 2"),
        (b"just words\n", "line 1"),
        (b"- a\n- b\n", "key: value"),
        (b"device: \xff\xfe\n", "UTF-8"),
        (b"device: cpu\ndtype:\n\t- auto\n", "line 3"),
        (b"device: cpu\n\tdtype: auto\n", "a tab"),
        (b"device: cpu\n---\ndevice: cpu\n", "line 2"),
        (b"device: cpu\x00\n", "line 1"),
        (b"device: cpu\n? [a]\n: b\n", "line 2"),
        (b"[" * 5000, "nested too deep"),
        (b"a: &a [*a]\n", "line 1"),
        (b"device: cpu\n<<: [text]\n", "line 2"),
        (b"a: !!python/object/apply:os.getcwd []\n", "line 1"),
        (b"#" * 1_000_001, "size"),
    ],
)
def test_a_broken_file_is_named(place: Path, content: bytes, said: str) -> None:
    (place / "kinoloom.yaml").write_bytes(content)
    error = refusal()
    assert str(place / "kinoloom.yaml") in error.message
    assert said in error.cause


def test_a_folder_in_place_of_the_file(place: Path) -> None:
    (place / "kinoloom.yaml").mkdir()
    assert str(place / "kinoloom.yaml") in refusal().message


def test_a_key_that_is_no_text(place: Path) -> None:
    (place / "kinoloom.yaml").write_text("1: 2\n")
    assert refusal().problems[0].field.startswith("1 in ")


def test_settings_can_be_made_by_hand(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).models == tmp_path / "cards"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:pass@10.0.0.1:6380/2",
        "rediss://user:p%40ss@cache.example:6379/0?ssl_cert_reqs=none",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=1&password=x",
    ],
)
def test_addresses_of_a_cache(url: str) -> None:
    settings = load_settings(cache_url=url)
    assert settings.cache_url is not None
    assert settings.cache_url.get_secret_value() == url
    assert url not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cr3t@localhost",
        "redis:/user:s3cr3t@localhost",
        "user:s3cr3t@localhost",
        "redis://user:s3cr3t@",
        "redis://user:s3cr3t/@localhost",
        "redis://user:s3cr3t@localhost:port",
        "redis://user:s3cr3t@localhost:0",
        "redis://user:s3cr3t@localhost:99999",
        "redis://user:s3cr3t@localhost/name",
        "redis://user:s3cr3t@[localhost",
        "redis://localhost?password=s3cr3t&decode_responses=True",
        "unix://user:s3cr3t@",
        ["redis://user:s3cr3t@localhost"],
    ],
)
def test_wrong_addresses_of_a_cache_keep_their_secret(place: Path, url: object) -> None:
    error = refusal(cache_url=url)
    assert [problem.field for problem in error.problems] == ["--cache-url"]
    assert "s3cr3t" not in f"{error} {error.cause} {error.as_dict()} {error.__context__!r}"
    assert "redis://" in error.problems[0].allowed
    with pytest.raises(ValidationError) as caught:
        Settings(cache_url=url)  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value)


def test_a_misplaced_address_keeps_its_secret(place: Path) -> None:
    (place / "kinoloom.yaml").write_text(
        "cach_url: redis://:s3cr3t@one\ncache: {url: 'redis://:s3cr3t@two'}\n"
        "default_model: 'redis://:s3cr3t@three'\ndevice: redis://:s3cr3t@four\n"
    )
    error = refusal()
    assert len(error.problems) == 3
    assert "s3cr3t" not in str(error.as_dict())


@pytest.mark.parametrize(
    ("key", "value"),
    [("cache_size", -1), ("cache_size", "much"), ("cache_ttl", 0), ("cache_ttl", "an hour")],
)
def test_wrong_bounds_of_a_cache(key: str, value: object) -> None:
    assert len(refusal(**{key: value}).problems) == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GB", 12_000_000_000),
        ("8 GiB", 8 << 30),
        ("1.5g", 1_500_000_000),
        ("500 mb", 500_000_000),
        ("4096", 4096),
    ],
)
def test_a_memory_budget_in_words(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("KINOLOOM_MEMORY_BUDGET", text)
    assert load_settings().memory_budget == size


@pytest.mark.parametrize("value", ["much", "12 apples", "0", "-1GB", "inf", 0, -5, True])
def test_a_memory_budget_that_is_no_size(value: object) -> None:
    with pytest.raises(InvalidRequest) as failure:
        load_settings(memory_budget=value)
    assert "12GB" in str(failure.value.problems[0])


# --- the server and its workers -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["postgresql://user:p%40ss@db.example:5433/kinoloom", "postgres://db/kinoloom"]
)
def test_addresses_of_a_database(url: str) -> None:
    settings = load_settings(database_url=url)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url
    assert url not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cr3t@localhost/k",
        "postgresql://user:s3cr3t@localhost",
        "postgresql://user:s3cr3t@localhost:0/k",
        "postgresql://user:s3cr3t@localhost:many/k",
        "postgresql://user:s3cr3t@[::1/k",
    ],
)
def test_what_is_no_database_is_refused_without_telling_its_secret(url: str) -> None:
    error = refusal(database_url=url)
    assert [problem.field for problem in error.problems] == ["--database-url"]
    assert "s3cr3t" not in str(error.as_dict())


def test_where_assets_may_lie(tmp_path: Path, place: Path) -> None:
    assert load_settings(assets="files").assets == str(place / "files")
    assert load_settings(assets="s3://bucket/folder/").assets == "s3://bucket/folder"
    (place / "taken").touch()
    for wrong in ("  ", "a\0b", "taken"):
        assert refusal(assets=wrong).problems[0].field == "--assets"


@pytest.mark.parametrize(
    ("origins", "found"),
    [
        ("https://studio.example", ("https://studio.example",)),
        (
            "https://A.example/, http://localhost:3000",
            ("https://a.example", "http://localhost:3000"),
        ),
        ([], ()),
    ],
)
def test_origins(origins: object, found: tuple[str, ...]) -> None:
    assert load_settings(cors_origins=origins).cors_origins == found


@pytest.mark.parametrize("origins", ["*", "studio.example", "https://a.example/path", "null"])
def test_what_is_no_origin(origins: str) -> None:
    assert refusal(cors_origins=origins).problems[0].field == "--cors-origins"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("max_upload", "0"),
        ("max_upload", "many"),
        ("rate_limit", -1),
        ("job_timeout", 0),
        ("worker_ttl", 0.5),
        ("history_days", 0),
        ("image_urls", "perhaps"),
    ],
)
def test_limits_of_the_server(name: str, wrong: object) -> None:
    assert len(refusal(**{name: wrong}).problems) == 1


def test_the_secret_of_webhooks_is_one() -> None:
    assert "s3cr3t" not in repr(load_settings(webhook_secret="s3cr3t"))


def test_what_was_loaded_is_loaded_again_only_when_something_changed(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = place / "kinoloom.yaml"
    file.write_text("device: cpu\n")
    first = load_settings()
    assert load_settings() is first
    file.write_text("device: mps\n")  # as long as before, and maybe in the same moment
    assert load_settings().device == "mps"
    monkeypatch.setenv("KINOLOOM_DEVICE", "cuda")
    assert load_settings().device == "cuda"
    assert load_settings(device="cpu").device == "cpu"
    assert load_settings().device == "cuda"
    monkeypatch.delenv("KINOLOOM_DEVICE")
    file.unlink()
    assert load_settings().device == "auto"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kinoloom.yaml").write_text("outputs: made\n")
    monkeypatch.chdir(elsewhere)
    assert load_settings().outputs == elsewhere / "made"


def test_wrong_settings_are_refused_each_time(place: Path) -> None:
    load_settings()
    (place / "kinoloom.yaml").write_text("device: toaster\n")
    for _ in range(2):
        (problem,) = refusal().problems
        assert problem.field.startswith("device in ")
