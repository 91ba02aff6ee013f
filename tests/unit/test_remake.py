from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kinoloom
from kinoloom.errors import InvalidMedia, InvalidRequest
from kinoloom.media.reader import read_video
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import write_video
from kinoloom.remake import Remake, read_remake
from kinoloom.store.store import Store

FRAMES = np.zeros((2, 64, 64, 3), np.uint8)
PLAN: dict[str, Any] = {
    "model": "tiny",
    "prompt": "a red ball",
    "negative": "",
    "width": 64,
    "height": 64,
    "frames": 9,
    "fps": 12.0,
    "steps": 2,
    "guidance": 2.0,
    "seed": 7,
    "request": {"tier": "preview", "format": "gif"},
    "inputs": {"image": None, "last_image": None, "video": None},
    "key": "k" * 64,
}

Forge = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A file with settings that somebody made up: those of PLAN with changes."""

    def make(**changes: object) -> Path:
        file = tmp_path / "forged.mp4"
        write_video(file, FRAMES, 12, format="mp4", settings={"plan": PLAN | changes})
        return file

    return make


def picture(folder: Path, name: str = "picture.png", grey: int = 90) -> Path:
    file = folder / name
    Image.new("RGB", (64, 64), (grey, grey, grey)).save(file)
    return file


def entry(path: object, digest: object = "sha256:" + "0" * 64) -> dict[str, object]:
    return {"path": path, "digest": digest, "width": 64, "height": 64}


def test_the_request_is_that_of_the_plan(forge: Forge, store: Store) -> None:
    remake = read_remake(forge(), {}, store)
    request = remake.request
    assert remake.key == "k" * 64
    assert (request.prompt, request.model, request.size) == ("a red ball", "tiny", (64, 64))
    assert (request.frames, request.fps, request.steps) == (9, 12.0, 2)
    assert (request.guidance, request.seed) == (2.0, 7)
    assert (request.tier, request.format) == ("preview", "gif")
    assert request.output is None


def test_what_is_given_changes_it(forge: Forge, store: Store) -> None:
    changes = {"seed": 9, "prompt": "a blue ball", "format": "webm", "steps": None}
    request = read_remake(forge(), changes, store).request
    assert (request.seed, request.prompt, request.format, request.steps) == (
        9,
        "a blue ball",
        "webm",
        2,
    )


def test_a_duration_takes_the_place_of_the_frames_and_a_tier_that_of_the_steps(
    forge: Forge, store: Store
) -> None:
    request = read_remake(forge(), {"duration": 2.0, "tier": "premium"}, store).request
    assert (request.frames, request.duration) == (None, 2.0)
    assert (request.steps, request.tier) == (None, "premium")
    kept = read_remake(forge(), {"tier": "premium", "steps": 5}, store).request
    assert (kept.steps, kept.tier) == (5, "premium")


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": 5},
        {"prompt": ["a"] * 1000},
        {"prompt": None},
        {"prompt": "x" * 100_000},
        {"prompt": "a\x1b[2Jb"},
        {"model": {"id": "tiny"}},
        {"model": "x" * 10_000},
        {"width": "64"},
        {"width": None},
        {"height": 10**300},
        {"width": -5},
        {"frames": 10**12},
        {"frames": 1.5},
        {"frames": True},
        {"fps": 0},
        {"fps": "fast"},
        {"steps": -1},
        {"guidance": [3]},
        {"guidance": 1e308},
        {"seed": 2**64},
        {"seed": "7"},
        {"negative": {}},
        {"request": {"tier": ["premium"]}},
        {"request": {"format": "exe"}},
        {"request": {"format": {}}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_values_that_cannot_be_used_are_refused_as_a_users_would_be(
    forge: Forge, store: Store, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_remake(forge(**changes), {}, store)
    assert len(caught.value.problems) == 1
    assert len(caught.value.cause) < 2000


@pytest.mark.parametrize("name", ["output", "image", "backend", "home", "__class__"])
def test_nothing_else_of_a_strangers_settings_is_used(
    forge: Forge, store: Store, name: str
) -> None:
    plain = read_remake(forge(), {}, store)
    odd = read_remake(forge(**{name: "/etc/passwd"}), {}, store)
    assert odd == plain
    asked = {"tier": "preview", "format": "gif", name: "/etc/passwd"}
    assert read_remake(forge(request=asked), {}, store) == plain


@pytest.mark.parametrize("settings", [None, {}, {"plan": None}, {"plan": [1]}, {"plan": "x"}])
def test_a_file_that_does_not_say_how_it_was_made(
    tmp_path: Path, store: Store, settings: dict[str, object] | None
) -> None:
    file = tmp_path / "plain.mp4"
    write_video(file, FRAMES, 12, format="mp4", settings=settings)
    with pytest.raises(InvalidMedia, match="does not say how it was made"):
        read_remake(file, {}, store)


def test_a_file_that_is_not_there(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InvalidMedia, match="does not exist"):
        read_remake(tmp_path / "gone.mp4", {}, store)


@pytest.mark.parametrize("inputs", [None, [], "x", {"image": "x"}, {"image": [1]}, {"other": {}}])
def test_inputs_of_a_wrong_shape_are_none(forge: Forge, store: Store, inputs: object) -> None:
    request = read_remake(forge(inputs=inputs), {}, store).request
    assert (request.image, request.last_image, request.video) == (None, None, None)


def test_an_input_comes_from_the_store_where_it_was(
    forge: Forge, store: Store, tmp_path: Path
) -> None:
    file = picture(tmp_path)
    asset = store.assets.put_file(file, "input")
    file.unlink()
    remake = read_remake(forge(inputs={"image": entry(str(file), asset.digest)}), {}, store)
    assert remake.request.image == asset.path


def test_an_input_comes_from_its_place_where_the_store_has_it_not(
    forge: Forge, store: Store, tmp_path: Path
) -> None:
    file = picture(tmp_path)
    with Store.open(tmp_path / "other") as other:
        digest = other.assets.put_file(file, "input").digest
    forged = forge(inputs={"image": entry(str(file), digest)})
    assert read_remake(forged, {}, store).request.image == file
    picture(tmp_path, grey=91)  # changed since
    with pytest.raises(InvalidMedia, match="not here any more") as caught:
        read_remake(forged, {}, store)
    assert str(file) in caught.value.cause
    assert "--image" in caught.value.hints[0]


def test_what_else_was_asked_is_asked_again(forge: Forge, store: Store) -> None:
    asked = {
        "loras": [{"name": "film-look", "weight": 0.8}],
        "preset": "turbo",
        "acceleration": "balanced",
        "candidates": 4,
        "cache": "bypass",
    }
    request = read_remake(forge(request=asked), {}, store).request
    assert [(x.name, x.weight) for x in request.loras] == [("film-look", 0.8)]
    assert (request.preset, request.acceleration) == ("turbo", "balanced")
    assert (request.candidates, request.cache) == (1, "use"), "the clip is one take, with its seed"
    changed = read_remake(forge(request=asked), {"acceleration": "fast"}, store).request
    assert (changed.preset, changed.acceleration) == ("turbo", "fast")
    for odd in ({"loras": "x" * 99999}, {"loras": [5]}, {"preset": {"a": 1}}, {"acceleration": 7}):
        with pytest.raises(InvalidRequest):
            read_remake(forge(request=odd), {}, store)


def test_every_kind_of_input_comes_back(forge: Forge, store: Store, tmp_path: Path) -> None:
    files = [picture(tmp_path, f"{i}.png", 10 * i) for i in range(4)]
    digests = [store.assets.put_file(file, "input").digest for file in files]
    places = [store.assets.path(digest) for digest in digests]
    inpainted = {
        "video": entry("gone", digests[0]),
        "mask": entry("gone", digests[1]),
        "references": [entry("gone", digests[2]), entry("gone", digests[3])],
    }
    request = read_remake(forge(inputs=inpainted), {}, store).request
    assert (request.video, request.mask) == (places[0], places[1])
    assert request.references == (places[2], places[3])
    other = read_remake(forge(inputs=inpainted), {"references": [files[0]]}, store).request
    assert (other.video, other.mask, other.references) == (places[0], places[1], (files[0],))
    other = read_remake(forge(inputs=inpainted), {"mask": files[3]}, store).request
    assert (other.video, other.mask) == (places[0], files[3])
    keyed = {"keyframes": [{"index": 8, "image": entry("gone", digests[0])}]}
    assert read_remake(forge(inputs=keyed), {}, store).request.keyframes == ((8, places[0]),)
    lost = {"references": [entry(str(tmp_path / "none"))]}
    with pytest.raises(InvalidMedia) as caught:
        read_remake(forge(inputs=lost), {}, store)
    assert "--reference FILE" in caught.value.hints[0]


@pytest.mark.parametrize(
    "inputs",
    [
        {"keyframes": [5]},
        {"keyframes": [{"index": 0}]},
        {"keyframes": [{"index": 0, "image": "x"}]},
        {"keyframes": {"index": 0}},
        {"references": [5, "x"]},
        {"references": "x"},
        {"mask": [1]},
    ],
)
def test_lists_of_a_wrong_shape_are_none_or_a_named_error(
    forge: Forge, store: Store, inputs: object
) -> None:
    try:
        request = read_remake(forge(inputs=inputs), {}, store).request
    except (InvalidMedia, InvalidRequest):
        return
    assert (request.references, request.keyframes, request.mask) == ((), (), None)


@pytest.mark.parametrize("name", ["image", "last_image", "video"])
def test_an_input_that_is_gone_is_asked_for(
    forge: Forge, store: Store, tmp_path: Path, name: str
) -> None:
    forged = forge(inputs={name: entry(str(tmp_path / "gone"))})
    with pytest.raises(InvalidMedia) as caught:
        read_remake(forged, {}, store)
    assert f"--{name.replace('_', '-')}" in caught.value.hints[0]
    changes: dict[str, object] = {name: picture(tmp_path)}
    if name == "last_image":
        changes["image"] = picture(tmp_path, "first.png")
    assert getattr(read_remake(forged, changes, store).request, name) == changes[name]


@pytest.mark.parametrize(
    "path",
    ["x" * 5000, "a\0b", "", ".", "/", "/dev/zero", "/dev/stdin", "/proc", 5, None, ["/dev/zero"]],
    ids=lambda p: repr(p)[:12],
)
@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "../../x", "", 7, None, "x" * 9999])
def test_a_place_that_a_stranger_made_up_is_harmless(
    forge: Forge, store: Store, path: object, digest: object
) -> None:
    """Neither an endless device nor a whole disk is read to find that it is something else."""
    with pytest.raises(InvalidMedia, match="not here any more"):
        read_remake(forge(inputs={"image": entry(path, digest)}), {}, store)


def test_a_pipe_is_not_waited_for(forge: Forge, store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidMedia, match="not here any more"):
        read_remake(forge(inputs={"video": entry(str(tmp_path / "pipe"))}), {}, store)


def test_a_new_picture_leaves_the_other_one(forge: Forge, store: Store, tmp_path: Path) -> None:
    digests = {
        name: store.assets.put_file(picture(tmp_path, f"{name}.png", grey), "input")
        for name, grey in (("image", 10), ("last_image", 20), ("video", 30))
    }
    pair = {n: entry("gone", digests[n].digest) for n in ("image", "last_image")}
    new = picture(tmp_path, "new.png", 200)

    def remade(inputs: object, **changes: object) -> Remake:
        return read_remake(forge(inputs=inputs), changes, store)

    request = remade(pair, image=new).request
    assert (request.image, request.last_image) == (new, digests["last_image"].path)
    request = remade(pair, last_image=new).request
    assert (request.image, request.last_image) == (digests["image"].path, new)
    request = remade(pair, video=new).request
    assert (request.image, request.last_image, request.video) == (None, None, new)
    video = {"video": entry("gone", digests["video"].digest)}
    assert remade(video).request.video == digests["video"].path
    request = remade(video, image=new).request
    assert (request.image, request.video) == (new, None)


@pytest.mark.parametrize(
    ("task", "format_"),
    [("t2v", "webm"), ("t2v", "gif"), ("flf2v", "png"), ("extend", "mp4")],
)
def test_a_real_clip_is_made_again_to_the_very_frame(studio: Path, task: str, format_: str) -> None:
    inputs: dict[str, Path] = {}
    if task == "flf2v":
        inputs = {n: picture(studio, f"{n}.png", g) for n, g in (("image", 10), ("last_image", 99))}
    elif task == "extend":
        inputs = {"video": studio / "before.mp4"}
        write_video(inputs["video"], np.full((9, 64, 64, 3), 120, np.uint8), 12, format="mp4")
    clip = kinoloom.generate("a red ball", format=format_, steps=3, negative="grass", **inputs)
    for file in inputs.values():
        file.unlink()
    with Store.open(studio / "home") as store:
        remake = read_remake(clip.path, {}, store)
    again = kinoloom.generate(remake.request, cache="bypass")
    assert again.path != clip.path
    assert again.record.plan_key == remake.key == clip.record.plan_key
    assert np.array_equal(read_video(again.path)[0], read_video(clip.path)[0])
    settings = read_settings(again.path)
    assert settings is not None
    assert settings["plan"]["key"] == remake.key
