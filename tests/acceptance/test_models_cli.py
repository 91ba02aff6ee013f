from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.command import User
from hand_made import pipeline_files, write

USAGE = 2


@pytest.fixture
def owner(user: User, tmp_path: Path) -> User:
    """Somebody with an empty cache and a Hub that does not answer."""
    user.environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        user.environment.pop(name, None)
    return user


def test_the_list_and_its_filters(owner: User) -> None:
    (answer,) = owner.run("models", "list", "--json").succeeded().events()
    states = {m["id"]: m["state"] for m in answer["models"] if m["backend"] == "local"}
    assert states.pop("spark") == "ready"
    assert set(states.values()) == {"missing"}
    assert answer["problems"] == []
    (answer,) = owner.run("models", "list", "--family", "ltx", "--json").succeeded().events()
    assert {m["family"] for m in answer["models"]} == {"ltx"}
    (answer,) = owner.run("models", "list", "--task", "extend", "--json").succeeded().events()
    assert "spark" in {m["id"] for m in answer["models"]}
    assert all("extend" in m["tasks"] for m in answer["models"])
    assert "missing on this disk" in owner.run("models", "list").succeeded().out
    ended = owner.run("models", "list", "--task", "t2w").failed("invalid_params", USAGE)
    assert "nearest is t2v" in ended.err


def test_a_models_facts(owner: User) -> None:
    (listed,) = owner.run("models", "list", "--json").succeeded().events()
    (card,) = owner.run("models", "show", "spark", "--json").succeeded().events()
    assert (card["id"], card["licence"]["id"]) == ("spark", "Apache-2.0")
    shown = owner.run("models", "show", "spark").succeeded().out
    assert "Apache-2.0" in shown
    assert "256x160" in shown
    here = [m for m in listed["models"] if m["backend"] == "local"]
    restricted = [m["id"] for m in here if m["family"].startswith("hunyuan")]
    for name in restricted[:1]:
        shown = owner.run("models", "show", name).succeeded().out
        assert "unverified: " in shown
        assert "does not hold everywhere" in shown
    owner.run("models", "show", "sprk").failed("model_not_found")


def test_a_check_ends_with_ready_or_with_what_to_do(owner: User) -> None:
    ended = owner.run("models", "check", "spark").succeeded()
    assert ended.out.splitlines()[-1] == "ready"
    assert "transformer/diffusion_pytorch_model.safetensors" in ended.out
    (listed,) = owner.run("models", "list", "--json").succeeded().events()
    name = next(m["id"] for m in listed["models"] if m["state"] == "missing")
    ended = owner.run("models", "check", name)
    assert ended.code == 1
    assert "not ready" in ended.out
    assert f"  -> kinoloom models pull {name}" in ended.out
    (found,) = owner.run("models", "check", name, "--json").events()
    assert not found["ready"]


def test_a_pull_without_a_network(owner: User) -> None:
    (listed,) = owner.run("models", "list", "--family", "wan", "--json").succeeded().events()
    here = [m["id"] for m in listed["models"] if m["backend"] == "local"]
    ended = owner.run("models", "pull", here[0]).failed("download_failed")
    assert "licence Apache-2.0" in ended.err
    assert "comes" in owner.run("models", "pull", "spark").succeeded().out


def test_a_model_is_added_checked_and_removed(owner: User) -> None:
    folder = write(owner.folder / "mine", pipeline_files())
    ended = owner.run("models", "add", folder).succeeded()
    assert "mine can do" in ended.out
    owner.run("models", "check", "mine").succeeded()
    owner.run("models", "add", folder).failed("invalid_params", USAGE)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    ended = owner.run("models", "check", "mine")
    assert ended.code == 1
    assert "vae/diffusion_pytorch_model.safetensors" in ended.out
    owner.run("generate", "a ball", "--model", "mine").failed("model_broken")
    ended = owner.run("models", "remove", "mine").failed("invalid_params", USAGE)
    assert "models remove mine --yes" in ended.err
    (removed,) = owner.run("models", "remove", "mine", "--yes", "--json").succeeded().events()
    assert removed["removed"] == [str(owner.home / "cards" / "mine.yaml")]
    assert folder.is_dir()
    owner.run("models", "check", "mine").failed("model_not_found")


def test_what_cannot_be_added(owner: User) -> None:
    (owner.folder / "a.ckpt").write_bytes(b"x")
    ended = owner.run("models", "add", "a.ckpt").failed("model_broken")
    assert "pickle" in ended.err
    owner.run("models", "add", "nowhere").failed("invalid_params", USAGE)
    owner.run("models", "remove", "spark", "--yes").failed("invalid_params", USAGE)


def test_settings_that_cannot_be_used(owner: User) -> None:
    wrong = {"KINOLOOM_COMFYUI": str(owner.folder / "none")}
    ended = owner.run("models", "list", environment=wrong).failed("invalid_params", USAGE)
    assert "comfyui" in ended.err
