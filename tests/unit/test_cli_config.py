from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from kinoloom import cli
from kinoloom.config import Settings
from kinoloom.config_load import load
from kinoloom.config_view import sample

SECRET = "sk-s3cr3t-of-nobody"
Kinoloom = Callable[..., Result]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and user folders, without any variable that sets something."""
    names = ("KINOLOOM_", "RUNWAYML", "GOOGLE_", "GEMINI", "REPLICATE")
    for name in [n for n in os.environ if n.startswith(names)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    return tmp_path


@pytest.fixture
def kinoloom() -> Kinoloom:
    """Run a command; an exception that is no exit fails the test."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.app, ["config", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert SECRET not in result.output
        return result

    return run


def configured(place: Path, text: str, mode: int = 0o600) -> Path:
    file = place / "kinoloom.yaml"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


# --- sample -------------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    return "\n".join(re.sub("^#", "", line) for line in text.splitlines())


def test_the_sample_sets_nothing_as_it_is(place: Path) -> None:
    file = configured(place, sample())
    assert load(file, {}).given == {}


def test_uncommenting_every_line_of_the_sample_gives_settings(place: Path) -> None:
    file = configured(place, uncommented(sample()))
    loaded = load(file, {})
    backends = loaded.settings.backends
    assert backends.comfyui.servers == ("http://127.0.0.1:8188",)
    assert list(backends.openai["cluster"].models) == ["cluster-wan"]
    assert backends.runway.api_key is None  # taken from a variable that is not set
    keyed = load(file, {"RUNWAYML_API_SECRET": SECRET}).settings.backends.runway.api_key
    assert keyed is not None
    assert keyed.get_secret_value() == SECRET


def test_the_samples_defaults_are_the_defaults(place: Path) -> None:
    """Where a setting has a default, uncommenting it changes nothing."""
    plain = Settings(home=place / "home")
    for line in sample().splitlines():
        if not (matched := re.fullmatch(r"#(\w+): (.*)", line)):
            continue
        name = matched[1]
        default = Settings.model_fields[name].get_default(
            call_default_factory=True, validated_data={"home": place / "home"}
        )
        if default in (None, ()) or isinstance(default, Path):  # an example, or of this machine
            continue
        assert getattr(load(configured(place, line[1:]), {}).settings, name) == getattr(plain, name)


def test_the_sample_has_every_setting_with_its_description() -> None:
    from kinoloom.config_schema import fields_of, named_values

    tree = yaml.safe_load(uncommented(sample()))
    text = " ".join(sample().replace("##", " ").split())

    def compare(annotation: object, found: object) -> int:
        fields, named = fields_of(annotation), named_values(annotation)
        if fields is None and named is None:
            return 1
        assert isinstance(found, dict)
        if fields is None:
            return sum(compare(named, value) for value in found.values())
        assert set(fields) == set(found)
        for name, info in fields.items():
            assert info.description, name
            assert " ".join(info.description.split()) in text
        return sum(compare(info.annotation, found[name]) for name, info in fields.items())

    assert compare(Settings, tree) > 40


def test_a_sample_is_written_once_and_only_for_its_owner(place: Path, kinoloom: Kinoloom) -> None:
    assert kinoloom("sample").stdout == sample()
    assert kinoloom("sample", "-o", "kinoloom.yaml").exit_code == 0
    file = place / "kinoloom.yaml"
    assert file.read_text(encoding="utf-8") == sample()
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("device: cpu\n")
    refused = kinoloom("sample", "-o", "kinoloom.yaml")
    assert refused.exit_code == 2
    assert "not there yet" in refused.stderr
    assert file.read_text() == "device: cpu\n"
    assert kinoloom("sample", "-o", "no/such/folder.yaml").exit_code == 1
    assert kinoloom("check").exit_code == 0


def test_the_example_of_the_documentation_is_right(place: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    settings = load(configured(place, example), {"RUNWAYML_API_SECRET": SECRET}).settings
    assert str(settings.budgets.clip) == "1.50"
    assert settings.backends.runway.api_key is not None


# --- check --------------------------------------------------------------------------------------


def test_no_file_is_no_mistake(kinoloom: Kinoloom) -> None:
    assert "ok  the defaults" in kinoloom("check").stdout


def test_mistakes_are_explained_with_their_lines(place: Path, kinoloom: Kinoloom) -> None:
    file = configured(place, "device: cpu\nbudgets:\n  dya: 5\n  month: much\n")
    found = kinoloom("check")
    assert found.exit_code == 2
    assert f"budgets.dya in {file}, line 3" in found.stderr
    assert "nearest is day" in found.stderr
    assert f"budgets.month in {file}, line 4 = 'much'" in found.stderr
    as_json = json.loads(kinoloom("check", "--json").stdout)
    assert len(as_json["error"]["problems"]) == 2


def test_a_mistake_behind_a_variable_is_told_as_well(
    place: Path, kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(place, "device: nonsense\n")
    monkeypatch.setenv("KINOLOOM_DEVICE", "cpu")
    monkeypatch.setenv("KINOLOOM_DTYPE", "wide")
    found = kinoloom("check")
    assert found.exit_code == 2
    assert "line 1 = 'nonsense'" in found.stderr
    assert "KINOLOOM_DTYPE = 'wide'" in found.stderr


def test_another_file_can_be_checked(place: Path, kinoloom: Kinoloom) -> None:
    configured(place, "device: nonsense\n")
    other = place / "other.yaml"
    other.write_text("device: cpu\n")
    assert kinoloom("check", other).exit_code == 0
    missing = kinoloom("check", place / "missing.yaml")
    assert missing.exit_code == 2
    assert "missing.yaml" in missing.stderr


_MODEL = "models: {{{name}: {{model: a/b, like: spark, price: free}}}}"
SERVER = "backends:\n  openai:\n    one: {{url: http://127.0.0.1:1/v1, " + _MODEL + "}}"
OTHER = "    two: {url: http://127.0.0.1:2/v1, " + _MODEL.format(name="mine") + "}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgets: {day: 5}", "no backend that costs money"),
        (f"backends: {{google: {{api_key: {SECRET}}}}}", "without any budget"),
        ("budgets: {currency: EUR, day: 5}", "prices are in USD"),
        ("budgets: {day: 50, month: 5}", "above budgets.month"),
        ("fallback: {chain: [local, comfyiu]}", "did you mean comfyui?"),
        ("fallback: {chain: [local, local]}", "twice"),
        (f"reword: {{url: http://host/v1, model: x, api_key: {SECRET}}}", "plain http"),
        (f"backends: {{runway: {{base_url: http://host, api_key: {SECRET}}}}}", "plain http"),
        ("reword: {enabled: yes, url: http://host/v1}", "set reword.model"),
        ("reword: {url: http://host/v1, model: x}", "reword.enabled is false"),
        (f"backends: {{replicate: {{webhook_secret: {SECRET}}}}}", "public_url"),
        (SERVER.format(name="spark"), "of the backend local already"),
        (SERVER.format(name="mine") + "\n" + OTHER, "of the server one already"),
    ],
)
def test_what_looks_odd_is_said_and_no_mistake(
    place: Path, kinoloom: Kinoloom, text: str, said: str
) -> None:
    configured(place, text)
    found = kinoloom("check")
    assert found.exit_code == 0
    assert said in found.stdout
    (warning,) = [
        w for w in json.loads(kinoloom("check", "--json").stdout)["warnings"] if said in w
    ]
    assert warning


@pytest.mark.parametrize(
    "text",
    [
        "device: cpu",
        f"reword: {{enabled: yes, url: http://127.0.0.1:1/v1, model: x, api_key: {SECRET}}}",
        f"backends: {{google: {{api_key: {SECRET}}}}}\nbudgets: {{clip: 1, film: 5, day: 5}}",
    ],
)
def test_what_is_well_is_not_warned_of(place: Path, kinoloom: Kinoloom, text: str) -> None:
    configured(place, text)
    assert json.loads(kinoloom("check", "--json").stdout)["warnings"] == []


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_a_key_that_all_can_read_is_warned_of(place: Path, kinoloom: Kinoloom) -> None:
    configured(place, f"backends: {{comfyui: {{}}, runway: {{api_key: {SECRET}}}}}", 0o644)
    assert "chmod 600" in kinoloom("check").stdout
    configured(place, "backends: {runway: {api_key: '${HOME}'}}", 0o644)
    assert "chmod 600" not in kinoloom("check").stdout


# --- show ---------------------------------------------------------------------------------------


def shown(kinoloom: Kinoloom) -> dict[str, dict[str, object]]:
    rows = json.loads(kinoloom("show", "--json").stdout)["settings"]
    return {row["name"]: row for row in rows}


def test_every_setting_says_where_it_comes_from(
    place: Path, kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = configured(
        place,
        f"""\
backends:
  openai:
    cluster: {{url: http://h/v1, api_key: {SECRET}, models: {{a: {{model: m, like: spark}}}}}}
budgets:
  day: 0.10
cache_url: redis://:{SECRET}@host
""",
    )
    monkeypatch.setenv("KINOLOOM_BUDGETS__MONTH", "5")
    monkeypatch.setenv("RUNWAYML_API_SECRET", SECRET)
    rows = shown(kinoloom)
    assert rows["budgets.day"]["value"] == "0.10"
    assert (rows["budgets.day"]["file"], rows["budgets.day"]["line"]) == (str(file), 5)
    assert rows["budgets.month"]["where"] == "the environment variable KINOLOOM_BUDGETS__MONTH"
    assert rows["device"]["where"] == "default"
    assert rows["backends.openai.cluster.api_key"]["value"] == "***"
    assert rows["backends.openai.cluster.models.a.like"]["value"] == "spark"
    assert rows["cache_url"]["value"] == "***"
    assert rows["backends.runway.api_key"]["value"] == "***"
    assert rows["backends.runway.api_key"]["where"].endswith("RUNWAYML_API_SECRET")
    assert rows["backends.google.api_key"]["value"] is None
    text = kinoloom("show").stdout
    assert re.search(r"budgets\.day +0\.10 +.*kinoloom\.yaml, line 5", text)


def test_settings_with_a_mistake_are_not_shown(place: Path, kinoloom: Kinoloom) -> None:
    configured(place, "device: nonsense\n")
    assert kinoloom("show").exit_code == 2
