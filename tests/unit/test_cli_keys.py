from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kinoloom.cli_keys import keys_app
from kinoloom.config import load_settings
from kinoloom.store.store import Store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(keys_app, list(arguments))


def test_a_key_is_shown_once_and_works_until_it_is_revoked(home: Path) -> None:
    made = run("create", "studio")
    assert made.exit_code == 0
    secret = made.stdout.strip()
    assert secret.startswith("kl_")
    with Store.of(load_settings()) as store:
        key = store.keys.verify(secret)
        assert key is not None
        assert (key.name, key.scopes, key.budget) == ("studio", {"read", "write"}, None)
        listed = run("list")
        assert key.prefix in listed.stdout
        assert "studio: read, write" in listed.stdout
        assert secret not in listed.stdout + run("list", "--json").stdout
        assert run("revoke", "studio").exit_code == 0
        assert store.keys.verify(secret) is None
    assert "revoked" in run("list").stdout
    # Nothing that the folder holds gives the secret away.
    assert not [f for f in home.rglob("*") if f.is_file() and secret.encode() in f.read_bytes()]


def test_scopes_and_a_budget_can_be_given() -> None:
    made = run("create", "ci", "--scope", "read", "--budget", "2.5", "--json")
    data = json.loads(made.stdout)
    assert data["scopes"] == ["read"]
    assert data["budget"] == "2.5"
    assert data["key"].startswith(data["prefix"])
    assert "0.00 USD of 2.50 USD spent" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)["keys"][0]["spent"] == "0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "a", "--scope", "wriet"), "nearest is write"),
        (("create", "a", "--budget", "-1"), "--budget"),
        (("create", "a", "--budget", "nan"), "--budget"),
        (("create", " "), "name"),
        (("create", "a\nb"), "name"),
    ],
)
def test_what_is_no_key_is_named(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_name_is_used_once_and_an_unknown_one_is_named() -> None:
    run("create", "a")
    again = run("create", "a")
    assert again.exit_code == 1
    assert "conflict" in again.stderr
    missing = run("revoke", "b")
    assert missing.exit_code == 1
    assert "not_found" in missing.stderr


def test_no_keys_say_how_to_make_one() -> None:
    assert "kinoloom keys create" in run("list").stdout
