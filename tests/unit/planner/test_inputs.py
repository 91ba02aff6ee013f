from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from kinoloom.errors import InvalidMedia
from kinoloom.planner.inputs import Inputs, file_digest, probe_inputs
from kinoloom.request import VideoRequest


def probe(**inputs: Path) -> Inputs:
    return probe_inputs(VideoRequest.checked(prompt="x", **inputs))


def test_words_alone_have_no_inputs() -> None:
    assert probe() == Inputs()
    assert probe().shape is None


def test_a_picture_and_a_last_one(picture: Path, square: Path) -> None:
    found = probe(image=picture, last_image=square)
    assert found.image is not None
    assert found.last_image is not None
    assert (found.image.width, found.image.height) == (512, 320)
    assert (found.last_image.width, found.last_image.height) == (300, 300)
    assert found.image.digest == "sha256:" + hashlib.sha256(picture.read_bytes()).hexdigest()
    assert found.shape == (512, 320)


def test_a_turned_photo_has_the_size_it_is_seen_in(tmp_path: Path) -> None:
    file = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: rotate by 90 degrees
    Image.new("RGB", (64, 32)).save(file, exif=exif)
    assert probe(image=file).shape == (32, 64)


def test_a_video(video: Path) -> None:
    found = probe(video=video)
    assert found.video is not None
    assert (found.video.width, found.video.height, found.video.frames) == (256, 160, 20)
    assert found.video.fps == pytest.approx(12)
    assert found.shape == (256, 160)


@pytest.mark.parametrize("name", ["image", "video"])
def test_a_missing_file_is_a_named_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidMedia, match="none"):
        probe(**{name: tmp_path / "none"})


@pytest.mark.parametrize("name", ["image", "video"])
def test_what_is_no_media_is_a_named_error(tmp_path: Path, name: str) -> None:
    file = tmp_path / "words.png"
    file.write_text("not a picture")
    with pytest.raises(InvalidMedia):
        probe(**{name: file})


def test_the_digest_is_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    a, b, c = (tmp_path / n for n in "abc")
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    c.write_bytes(b"other")
    assert file_digest(a) == file_digest(b) != file_digest(c)


def test_the_digest_of_a_folder_knows_content_and_names(tmp_path: Path) -> None:
    digests = set()
    for i, files in enumerate(({"1": "a", "2": "b"}, {"1": "b", "2": "a"}, {"1": "a", "3": "b"})):
        folder = tmp_path / str(i)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        digests.add(file_digest(folder))
    assert len(digests) == 3


def test_a_digest_of_nothing_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia) as caught:
        file_digest(tmp_path / "none")
    assert caught.value.hints
