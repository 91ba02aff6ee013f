"""What does a new user see whose disk, settings, data folder or model files are not in order?"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from acceptance.command import PROMPT, QUICK, Made, User, file_limit, fill, small_disk
from kinoloom.catalog.loader import Catalog

USAGE = 2


def package(*parts: str) -> Path:
    return Path(str(resources.files("kinoloom").joinpath(*parts)))


def write_card(user: User, weights: Path, name: str = "mine") -> None:
    """The user's own card: spark's, with another name and other weights."""
    card = package("catalog", "cards", "spark.yaml").read_text(encoding="utf-8")
    card = card.replace("id: spark", f"id: {name}").replace(
        "package: catalog/weights/spark", f"path: {weights}"
    )
    cards = user.home / "cards"
    cards.mkdir(parents=True, exist_ok=True)
    (cards / f"{name}.yaml").write_text(card, encoding="utf-8")


# --- output ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "file.txt/clip.mp4"], "file is where a folder is needed"),
        (["--output", "/proc/clip.mp4"], "/proc/clip.mp4"),
        (["--output", "/dev/null/clip.mp4"], "/dev/null/clip.mp4"),
        (["--output", "x" * 300 + ".mp4"], "too long"),
        (["--output", "file.txt", "--format", "png"], "folder"),
        (["--output", "full", "--format", "png"], "holds files"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    user: User, arguments: list[str], said: str
) -> None:
    (user.folder / "file.txt").write_text("precious", encoding="utf-8")
    (user.folder / "full").mkdir()
    (user.folder / "full" / "file.txt").write_text("precious", encoding="utf-8")
    before = user.files()
    ended = user.run("generate", PROMPT, *arguments).failed("output_failed")
    assert said in ended.err
    assert "rendering" not in ended.err
    assert user.files() == before
    assert (user.folder / "file.txt").read_text(encoding="utf-8") == "precious"
    assert user.records() == []


def test_an_output_folder_that_is_a_file_is_explained(user: User) -> None:
    (user.folder / "outputs").write_text("", encoding="utf-8")
    ended = user.run("generate", PROMPT).failed("invalid_params", USAGE)
    assert "outputs" in ended.err


def test_a_read_only_disk_is_explained(user: User) -> None:
    place = user.folder / "disk"
    with small_disk(place, "1m", "ro") as mounted:
        # Where nothing can be mounted, the kernel's own read-only file system has to do.
        target = place / "clip.mp4" if mounted else Path("/sys/clip.mp4")
        ended = user.run("generate", PROMPT, "--output", target).failed("output_failed")
    if mounted:
        assert "read-only" in ended.err
    assert "rendering" not in ended.err


def test_a_full_disk_is_told_before_the_work(user: User) -> None:
    place = user.folder / "disk"
    with small_disk(place, "64k") as mounted:
        if mounted:
            ended = user.run("generate", PROMPT, "--output", place / "clip.mp4")
            ended.failed("output_failed")
            assert "MB free" in ended.err
            assert "rendering" not in ended.err
            assert list(place.iterdir()) == []
        else:
            # No file may grow: the data folder's database is the first that cannot.
            user.run("generate", PROMPT, before=file_limit(4096)).failed("output_failed")
    assert user.files() == []


@pytest.mark.model
@pytest.mark.slow
def test_a_disk_that_fills_up_during_the_work_leaves_nothing(user: User) -> None:
    place = user.folder / "disk"
    with small_disk(place, "1m") as mounted:
        target = place / "clip.gif"
        if mounted:
            ended = user.interfere(lambda _: fill(place), PROMPT, *QUICK, "--output", target)
        else:
            # More than the data folder's files need, less than a GIF of so many frames.
            arguments = (PROMPT, "--steps", "8", "--frames", "49", "--output", target, "--json")
            ended = user.run("generate", *arguments, before=file_limit(200_000))
        assert ended.code == 1, ended.err
        error = ended.events()[-1]["error"]
        assert error["kind"] == "output_failed"
        assert str(target) in error["message"]
        assert error["hints"]
        assert "Traceback" not in ended.err
        assert [f.name for f in place.iterdir() if f.name != "filler"] == []
    assert user.records() == []


# --- the data folder ------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["file.txt", "file.txt/home", "/proc/kinoloom"])
def test_a_data_folder_that_cannot_be_written_is_explained(user: User, home: str) -> None:
    (user.folder / "file.txt").write_text("precious", encoding="utf-8")
    ended = user.run("generate", PROMPT, environment={"KINOLOOM_HOME": home})
    if home == "file.txt":
        ended.failed("invalid_params", USAGE)
        assert "KINOLOOM_HOME" in ended.err
    else:
        ended.failed("output_failed")
        assert "Set KINOLOOM_HOME" in ended.err
    assert (user.folder / "file.txt").read_text(encoding="utf-8") == "precious"


def test_a_data_folder_on_a_full_disk_is_explained(user: User) -> None:
    with small_disk(user.home, "16k") as mounted:
        before = None if mounted else file_limit(4096)
        ended = user.run("generate", PROMPT, before=before).failed("output_failed")
    assert "KINOLOOM_HOME" in ended.err


@pytest.mark.parametrize("damage", [b"this is no database\n" * 100, b"", None])
def test_a_damaged_database_is_explained(user: User, damage: bytes | None) -> None:
    user.records()
    (database,) = user.home.glob("*.sqlite3")
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 3] if damage is None else damage)
    ended = user.run("plan", PROMPT)
    if damage == b"":
        ended.succeeded()  # an empty file is a database without tables
        return
    ended.failed("store_broken")
    assert "move it away" in ended.err


@pytest.mark.model
@pytest.mark.slow
def test_a_data_folder_that_fills_up_during_the_work_leaves_no_video(user: User) -> None:
    with small_disk(user.home, "1m") as mounted:
        if mounted:
            ended = user.interfere(lambda _: fill(user.home), PROMPT, *QUICK)
        else:
            ended = user.run("generate", PROMPT, *QUICK, "--json", before=file_limit(4096))
        assert ended.code == 1, ended.err
        error = ended.events()[-1]["error"]
        assert error["kind"] == "output_failed"
        assert error["hints"]
        assert "Traceback" not in ended.err
    assert list(user.folder.rglob("*.mp4")) == []


# --- settings and cards ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device: [cpu\n", "line 2"),
        ("- device\n", "key: value"),
        ("devise: cpu\n", "nearest is device"),
        ("device: gpu\n", "= 'gpu': allowed is auto, cpu"),
        ("dtype: float64\n", "float32"),
        ("\x00\x01\x02", "YAML"),
    ],
)
def test_a_broken_settings_file_is_explained(user: User, text: str, said: str) -> None:
    (user.folder / "kinoloom.yaml").write_text(text, encoding="utf-8")
    ended = user.run("generate", PROMPT).failed("invalid_params", USAGE)
    assert "kinoloom.yaml" in ended.err
    assert said in ended.err


def test_a_device_that_is_not_here_is_explained(user: User) -> None:
    wanted = {"KINOLOOM_DEVICE": "cuda:99"}
    ended = user.run("generate", PROMPT, *QUICK, environment=wanted)
    ended.failed("invalid_params", USAGE)
    assert "cuda:99" in ended.err
    assert user.files() == []


def test_a_broken_card_hides_no_other_model(user: User) -> None:
    write_card(user, Path("weights"))
    card = user.home / "cards" / "mine.yaml"
    card.write_text(card.read_text(encoding="utf-8").replace("frames:", "framez:"), "utf-8")
    ended = user.run("models", "list").succeeded()
    assert "spark" in ended.out
    assert f"{card}: frames: is missing" in ended.out
    assert f"{card}: framez: no such field; did you mean frames?" in ended.out
    ended = user.run("generate", PROMPT, "--model", "mine").failed("model_not_found")
    assert "framez" in ended.err
    user.run("generate", PROMPT, "--model", "spark", "--dry-run").succeeded()
    (answer,) = user.run("models", "list", "--json").succeeded().events()
    ids = {m["id"] for m in answer["models"]}
    assert ids == {card.id for card in Catalog.load()}  # every one but the broken
    assert len(answer["problems"]) >= 2


def test_missing_weights_are_explained(user: User) -> None:
    write_card(user, user.folder / "nowhere")
    ended = user.run("generate", PROMPT, "--model", "mine").failed("model_not_found")
    assert str(user.folder / "nowhere") in ended.err
    assert "check the path in the model's card" in ended.err
    (answer,) = user.run("models", "list", "--json").succeeded().events()
    ready = {m["id"]: m["ready"] for m in answer["models"]}
    assert set(ready) == {"mine", *(card.id for card in Catalog.load())}
    assert (ready["mine"], ready["spark"]) == (False, True)


@pytest.mark.model
def test_a_broken_weights_folder_is_explained(user: User) -> None:
    weights = user.folder / "weights"
    shutil.copytree(package("catalog", "weights", "spark"), weights)
    file = weights / "transformer" / "diffusion_pytorch_model.safetensors"
    with file.open("rb+") as handle:
        handle.truncate(file.stat().st_size // 2)
    write_card(user, weights)
    before = user.files()
    ended = user.run("generate", PROMPT, *QUICK, "--model", "mine").failed("model_broken")
    assert str(weights) in ended.err
    assert user.files() == before
    assert user.records() == []


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("damage", ["weights left out", "no configuration", "not JSON"])
def test_other_damage_to_the_weights_is_explained(
    studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    import safetensors.torch

    import kinoloom
    from kinoloom.errors import ModelBroken

    user = User(tmp_path)
    weights = user.folder / "weights"
    shutil.copytree(package("catalog", "weights", "spark"), weights)
    if damage == "weights left out":
        file = weights / "transformer" / "diffusion_pytorch_model.safetensors"
        tensors = safetensors.torch.load_file(file)
        tensors.pop(sorted(tensors)[0])
        safetensors.torch.save_file(tensors, file)
    elif damage == "no configuration":
        (weights / "vae" / "config.json").unlink()
    else:
        (weights / "model_index.json").write_text("{", encoding="utf-8")
    write_card(user, weights)
    monkeypatch.setenv("KINOLOOM_HOME", str(user.home))
    with pytest.raises(ModelBroken) as caught:
        kinoloom.generate(PROMPT, model="mine", steps=8, frames=1, output=user.folder / "x.mp4")
    assert str(weights) in " ".join((caught.value.message, caught.value.cause, *caught.value.hints))
    assert caught.value.hints
    assert not (user.folder / "x.mp4").exists()


@pytest.mark.model
def test_the_shared_clip_is_still_whole(made: Made) -> None:
    # Nothing in this file may have written into another user's folders.
    assert list(made.path.parent.iterdir()) == [made.path]
