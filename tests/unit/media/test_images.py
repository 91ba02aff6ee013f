from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.media.images import fit, load_image, save_png


@pytest.fixture
def frame(clip: np.ndarray) -> np.ndarray:
    return clip[0]


def test_png_round_trip_is_exact(tmp_path: Path, frame: np.ndarray) -> None:
    save_png(tmp_path / "new" / "a.png", frame)
    assert np.array_equal(load_image(tmp_path / "new" / "a.png"), frame)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_allowed_format(tmp_path: Path, frame: np.ndarray, kind: str, psnr) -> None:
    Image.fromarray(frame).save(tmp_path / "picture", kind)
    assert psnr(load_image(tmp_path / "picture"), frame) > 25


def test_other_formats_are_refused(tmp_path: Path, frame: np.ndarray) -> None:
    Image.fromarray(frame).save(tmp_path / "a.png", "PPM")
    with pytest.raises(InvalidMedia) as caught:
        load_image(tmp_path / "a.png")
    assert "PNG" in caught.value.cause


def test_exif_orientation_turns_it_upright(tmp_path: Path, frame: np.ndarray) -> None:
    image = Image.fromarray(frame)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "a.png"), np.rot90(frame, -1))


def test_transparency_is_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded[0, 0].tolist() == [255, 0, 0]
    assert loaded[1, 1].tolist() == [255, 255, 255]
    assert abs(int(loaded[0, 1, 0]) - 127) <= 1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 128, 255]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert load_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9000, 9000), (50_000, 50_000), (2**31 - 1, 2)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(_png_header(*size))
    with pytest.raises(InvalidMedia) as caught:
        load_image(tmp_path / "bomb.png")
    assert "too large" in caught.value.message


def test_limits_can_be_set(tmp_path: Path, frame: np.ndarray) -> None:
    save_png(tmp_path / "a.png", frame)
    with pytest.raises(InvalidMedia, match="too large"):
        load_image(tmp_path / "a.png", max_pixels=100)
    with pytest.raises(InvalidMedia, match="too large"):
        load_image(tmp_path / "a.png", max_bytes=100)


def test_hostile_paths(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    for name, words in (
        ("missing.png", "does not exist"),
        ("", "is a folder"),
        ("empty.png", "is empty"),
        ("text.png", "not a picture"),
        ("text.png/inside", "does not exist"),
        ("a\0b", "Cannot open"),
    ):
        with pytest.raises(InvalidMedia) as caught:
            load_image(tmp_path / name if name else tmp_path)
        assert words in caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_cut_short(tmp_path: Path, frame: np.ndarray, kind: str) -> None:
    path = tmp_path / "picture"
    Image.fromarray(frame).save(path, kind)
    data = path.read_bytes()
    for share in (0.02, 0.3, 0.7):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InvalidMedia):
            load_image(path)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_is_named_or_survived(
    tmp_path_factory: pytest.TempPathFactory, clip: np.ndarray, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "picture"
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]))
    Image.fromarray(clip[0][:16, :16]).save(path, kind)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        assert load_image(path, max_pixels=10_000).dtype == np.uint8
    except InvalidMedia:
        pass


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    to_height=st.integers(1, 60),
    to_width=st.integers(1, 60),
)
@settings(deadline=None)
def test_fit_has_the_size_asked_for(height: int, width: int, to_height: int, to_width: int) -> None:
    fitted = fit(np.full((height, width, 3), 77, np.uint8), to_width, to_height)
    assert fitted.shape == (to_height, to_width, 3)
    assert (fitted == 77).all()


def test_fit_covers_and_keeps_the_centre() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (fit(wide, 10, 10) == 200).all()
    assert (fit(wide, 20, 20)[:, 3:-3] >= 195).all()
    assert fit(np.zeros((1, 10_000, 3), np.uint8), 512, 512).shape == (512, 512, 3)


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InvalidMedia):
            save_png(tmp_path / "a.png", wrong)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputFailed):
        save_png(tmp_path, np.zeros((4, 4, 3), np.uint8))
