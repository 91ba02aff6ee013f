"""Do the settings' sections come together from file and variables, and are mistakes explained?"""

from __future__ import annotations

import contextlib
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.config import Settings, load_settings
from kinoloom.config_load import load
from kinoloom.config_sections import BackendsSettings, BudgetSettings, RunwaySettings
from kinoloom.errors import InvalidRequest, Problem

SECRET = "sk-s3cr3t-of-nobody"


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


def written(place: Path, text: str) -> Settings:
    (place / "kinoloom.yaml").write_text(text, encoding="utf-8")
    return load_settings()


def mistakes(place: Path, text: str) -> dict[str, Problem]:
    """The problems of a file by the setting's dotted name and line, as in ``budgets.day:2``."""
    with pytest.raises(InvalidRequest) as caught:
        written(place, text)
    error = caught.value
    assert SECRET not in f"{error} {error.cause} {error.as_dict()} {error.__context__!r}"
    found = {}
    for problem in error.problems:
        matched = re.fullmatch(r"(.*) in .*kinoloom\.yaml, line (\d+)", problem.field)
        assert matched, problem.field
        found[f"{matched[1]}:{matched[2]}"] = problem
    return found


def test_sections_hold_what_the_file_says(place: Path) -> None:
    settings = written(
        place,
        """\
backends:
  comfyui:
    servers: [http://one:8188/, "http://two:8188"]
  openai:
    cluster:
      url: http://cluster:8000/v1
      models:
        big-wan: {model: Wan-AI/Wan2.2, like: wan-2.2-t2v-a14b, price: 0.10}
        own: {model: "1", like: spark, price: free}
  google:
    locations: us-central1, europe-west4
budgets:
  day: 5.10
fallback:
  enabled: off
  chain: [local, comfyui]
prefer: cost
""",
    )
    assert settings.backends.comfyui.servers == ("http://one:8188", "http://two:8188")
    models = settings.backends.openai["cluster"].models
    assert (models["big-wan"].price, models["own"].price) == (Decimal("0.10"), "free")
    assert settings.backends.google.locations == ("us-central1", "europe-west4")
    assert settings.budgets.day == Decimal("5.10")
    assert settings.fallback.enabled is False
    assert settings.fallback.chain == ("local", "comfyui")
    assert settings.prefer == "cost"


@pytest.mark.parametrize("text", ["0.1", "0.10", "'0.10'", "10e-2", "0.100000"])
def test_money_is_what_is_written(place: Path, text: str) -> None:
    # As a float it would be 0.1000000000000000055511151231257827.
    assert written(place, f"budgets: {{day: {text}}}\n").budgets.day == Decimal("0.1")


@pytest.mark.parametrize("text", ["-1", "nan", ".inf", "1e400", "0.1234567", "5 USD", "[5]", "5,0"])
def test_what_is_no_money(place: Path, text: str) -> None:
    assert list(mistakes(place, f"budgets:\n  day: {text}\n")) == ["budgets.day:2"]


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("on", True), ("no", False), ("OFF", False)]
)
def test_words_for_true_and_false(place: Path, word: str, value: bool) -> None:
    assert written(place, f"reword: {{enabled: {word}}}\n").reword.enabled is value


def test_a_word_stays_a_word_where_one_is_wanted(place: Path) -> None:
    # YAML 1.1 would make these False, 7, a date and seconds.
    texts = ("no", "007", "2026-01-01", "12:30:45", "1.0", "0x1F")
    for text in texts:
        assert written(place, f"default_model: {text}\n").default_model == text


def test_what_is_left_empty_is_not_given(place: Path) -> None:
    text = "device:\nbackends:\n  runway:\n  google:\n    api_key:\nbudgets: ~\n"
    assert written(place, text) == Settings(home=load_settings().home)


def test_a_mark_at_the_beginning_of_the_file_is_skipped(place: Path) -> None:
    assert written(place, "\ufeffdevice: cpu\n").device == "cpu"


def test_parts_may_be_named_once_and_used_again(place: Path) -> None:
    settings = written(
        place,
        """\
backends:
  openai:
    one: &server
      url: http://one/v1
      models: {a: {model: m, like: spark}}
    two: {<<: *server, url: http://two/v1}
""",
    )
    one, two = settings.backends.openai["one"], settings.backends.openai["two"]
    assert (one.url, two.url) == ("http://one/v1", "http://two/v1")
    assert two.models == one.models


def test_aliases_of_aliases_are_stopped(place: Path) -> None:
    lines = ["device: cpu", "a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (place / "kinoloom.yaml").write_text("\n".join(lines))
    with pytest.raises(InvalidRequest, match="cannot be used") as caught:
        load_settings()
    assert "aliases" in caught.value.cause


# --- mistakes ---------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_with_its_line(place: Path) -> None:
    found = mistakes(
        place,
        f"""\
devise: cpu
dtype: float61
budgets:
  day: 5
  day: 6
  mont: 3
  month: many
  warn_at: 7
backends:
  runway:
    apikey: {SECRET}
  google: {SECRET}
  comfyui:
    servers:
      - http://127.0.0.1:8188
      - http://user:{SECRET}@host
    workflows: [a]
  openai:
    My Cluster: {{url: http://h/v1, models: {{}}}}
    good:
      api_key: {SECRET}
      models:
        wan: {{model: x, like: spark, price: cheap}}
reword:
  api_key: [{SECRET}]
  url: https://host/v1?key={SECRET}
prefer: qualty
""",
    )
    assert list(found) == [
        "devise:1",
        "dtype:2",
        "budgets.day:5",
        "budgets.mont:6",
        "budgets.month:7",
        "budgets.warn_at:8",
        "backends.runway.apikey:11",
        "backends.google:12",
        "backends.comfyui.servers.1:16",
        "backends.comfyui.workflows:17",
        "backends.openai.My Cluster:19",
        "backends.openai.good.url:20",
        "backends.openai.good.models.wan.price:23",
        "reword.api_key:25",
        "reword.url:26",
        "prefer:27",
    ]
    nearest = {name.partition(":")[0]: problem.nearest for name, problem in found.items()}
    assert nearest["devise"] == "device"
    assert nearest["budgets.mont"] == "month"
    assert nearest["backends.runway.apikey"] == "api_key"
    assert nearest["prefer"] == "quality"
    assert "line 4" in found["budgets.day:5"].allowed
    assert "api_key, base_url, project" in found["backends.google:12"].allowed
    assert found["backends.openai.good.models.wan.price:23"].value == "cheap"


@pytest.mark.parametrize(
    "text",
    [
        f"backends: {SECRET}\n",
        f"backends: [{SECRET}]\n",
        f"backends: {{openai: {SECRET}}}\n",
        f"backends: {{openai: {{one: {SECRET}}}}}\n",
        f"backends: {{openai: {{one: {{key: {SECRET}, url: x}}}}}}\n",
        f"backends: {{openai: {{one: {{api_key: {{a: {SECRET}}}}}}}}}\n",
        f"backends: {{replicate: {{api_key: [{SECRET}]}}}}\n",
        f"backends: {{runway: {{base_url: 'https://{SECRET}@host'}}}}\n",
        f"backends: {{runway: {{base_url: 'https://host?key={SECRET}'}}}}\n",
        f"backends: {{runway: {{base_url: {SECRET}}}}}\n",
        f"backends: {{openai: {{one: {{url: {SECRET}, models: {{}}}}}}}}\n",
        f"reword: {{url: {SECRET}}}\n",
        f"runway: {{api_key: {SECRET}}}\n",
        f"api_key: {SECRET}\n",
        f"webhook_secret: [{SECRET}]\n",
        f"database_url: {SECRET}\n",
    ],
)
def test_a_misplaced_secret_is_never_shown(place: Path, text: str) -> None:
    assert mistakes(place, text)


def test_a_mistake_that_a_variable_covers_does_not_count(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINOLOOM_BUDGETS__DAY", "0.10")
    assert written(place, "budgets:\n  day: ${NOT_SET}\n").budgets.day == Decimal("0.10")


KEYS = st.sampled_from(
    ["backends", "runway", "openai", "one", "models", "api_key", "url", "servers", "day", "<<", "x"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from([SECRET, f"https://u:{SECRET}@h/?k={SECRET}", "${A_KEY}", "${", "$${A}"])
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(list(Settings.model_fields)), VALUES, max_size=4))
def test_whatever_stands_there_ends_in_settings_or_mistakes(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    file = tmp_path_factory.mktemp("any") / "kinoloom.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        loaded = load(file, {"A_KEY": SECRET})
    except InvalidRequest as error:
        places = {"backends", "cache_url", "database_url", "webhook_secret", "reword"}
        shown = [p.value for p in error.problems if p.field.partition(".")[0].split()[0] in places]
        assert SECRET not in f"{shown}"
    else:
        assert SECRET not in repr(loaded.settings.backends)


@given(st.binary(max_size=300) | st.text("{}[]&*!|>:-#%@`?,'\"a1 \t\n", max_size=60))
def test_whatever_the_bytes_are_it_is_no_crash(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    file = tmp_path_factory.mktemp("any") / "kinoloom.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with contextlib.suppress(InvalidRequest):
        assert load(file, {}).settings


# --- variables in the file --------------------------------------------------------------------


def test_variables_are_put_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", SECRET)
    monkeypatch.setenv("A_HOST", "there")
    settings = written(
        place,
        """\
backends:
  runway: {api_key: "${A_KEY}", base_url: "${NOT_SET:-}"}
  comfyui: {servers: ["http://${A_HOST}:8188", "${NOT_SET:-}", "http://${NOT_SET:-here}:1"]}
  google: {project: "$${A_HOST}"}
budgets: {day: "${NOT_SET:-0.10}"}
""",
    )
    runway = settings.backends.runway
    assert runway.api_key is not None
    assert runway.api_key.get_secret_value() == SECRET
    assert runway.base_url is None
    assert settings.backends.comfyui.servers == ("http://there:8188", "http://here:1")
    assert settings.backends.google.project == "${A_HOST}"
    assert settings.budgets.day == Decimal("0.10")
    assert (
        SECRET
        not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )


def test_what_a_variable_holds_cannot_add_settings(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_NAME", "x\ndevice: cuda:7\n${B_NAME}")
    settings = written(place, "default_model: ${A_NAME}\n")
    assert (settings.device, settings.default_model) == ("auto", "x\ndevice: cuda:7\n${B_NAME}")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("${NOT_SET}", "NOT_SET is not"),
        ("${EMPTY}", "EMPTY is not"),
        ("a${NOT_SET}b${ALSO}", "ALSO is not"),
        ("${NOT SET}", "${NAME}"),
        ("${}", "${NAME}"),
        ("${1X}", "${NAME}"),
        ("${OPEN", "${NAME}"),
    ],
)
def test_variables_that_cannot_be_put_in(
    place: Path, monkeypatch: pytest.MonkeyPatch, value: str, named: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    found = mistakes(place, f"prefer: cost\nbackends:\n  google:\n    project: '{value}'\n")
    assert "backends.google.project:4" in found
    problem = list(found.values())[-1]
    assert problem.value == value
    assert named in problem.allowed


def test_a_wrong_value_from_a_variable_is_shown_as_it_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", SECRET)
    found = mistakes(place, "prefer: ${A_KEY}\nbudgets:\n  day: ${A_KEY}\n")
    assert [problem.value for problem in found.values()] == ["${A_KEY}", "${A_KEY}"]


# --- places -------------------------------------------------------------------------------------


def test_paths_in_sections_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "kinoloom.yaml").write_text(
        """\
backends:
  comfyui: {workflows: flows}
  google: {credentials: ~/key.json, bucket: "gs://bucket/x"}
model_roots: [one, /two]
assets: s3://bucket/x
"""
    )
    settings = load_settings()
    assert settings.backends.comfyui.workflows == tmp_path / "conf" / "flows"
    assert settings.backends.google.credentials == Path("~/key.json").expanduser()
    assert settings.backends.google.bucket == "gs://bucket/x"
    assert settings.model_roots == (tmp_path / "conf" / "one", Path("/two"))
    assert settings.assets == "s3://bucket/x"


# --- the environment ----------------------------------------------------------------------------


def test_variables_reach_into_sections(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "BUDGETS__DAY": "5",
        "BACKENDS__COMFYUI__SERVERS": "http://one:8188 http://two:8188",
        "BACKENDS__RUNWAY__API_KEY": SECRET,
        "BACKENDS__OPENAI__CLUSTER__URL": "http://new/v1",
        "FALLBACK__CHAIN": "local,google",
        "REWORD__ENABLED": "",
    }.items():
        monkeypatch.setenv(f"KINOLOOM_{name}", value)
    settings = written(
        place,
        """\
backends:
  comfyui: {servers: http://old:1}
  openai:
    cluster: {url: http://old/v1, models: {a: {model: m, like: spark}}}
budgets: {month: 20}
""",
    )
    assert (settings.budgets.day, settings.budgets.month) == (Decimal(5), Decimal(20))
    assert settings.backends.comfyui.servers == ("http://one:8188", "http://two:8188")
    assert settings.backends.openai["cluster"].url == "http://new/v1"
    assert list(settings.backends.openai["cluster"].models) == ["a"]
    assert settings.fallback.chain == ("local", "google")
    assert settings.backends.runway.api_key is not None


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("KINOLOOM_BUDGETS__DYA", "day"),
        ("KINOLOOM_BUDGETS__DAY__MORE", None),
        ("KINOLOOM_BACKENDS__RUNWAY__APIKEY", "api_key"),
        ("KINOLOOM_BACKENDS", None),
        ("KINOLOOM_BACKENDS__RUNWAY", None),
    ],
)
def test_variables_that_set_nothing_are_mistakes(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str | None
) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(InvalidRequest) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.field == f"the environment variable {name}"
    assert problem.nearest == nearest
    assert SECRET not in str(caught.value.as_dict())


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINOLOOM_TEST__SOMETHING", "x")
    monkeypatch.setenv("KINOLOOM_OTHER", "x")
    assert load_settings().device == "auto"


# --- settings as such ---------------------------------------------------------------------------


def test_equal_settings_have_equal_hashes(place: Path) -> None:
    text = "backends: {openai: {a: {url: http://h/v1, models: {b: {model: m, like: spark}}}}}\n"
    one, two = written(place, text), written(place, text)
    assert one == two
    assert hash(one) == hash(two)
    assert one != one.model_copy(update={"prefer": "cost"})
    assert hash(one.model_copy(update={"device": "cpu"})) == hash(
        written(place, text + "device: cpu")
    )


def test_keys_are_told_apart_although_none_is_shown(tmp_path: Path) -> None:
    def with_key(key: str) -> Settings:
        runway = RunwaySettings(api_key=key)  # type: ignore[arg-type]
        return Settings(home=tmp_path, backends=BackendsSettings(runway=runway))

    assert with_key(SECRET) != with_key("another")
    assert SECRET not in repr(with_key(SECRET))


def test_any_budget_is_consent_to_spend() -> None:
    assert not BudgetSettings().any
    assert BudgetSettings(clip=Decimal(0)).any
