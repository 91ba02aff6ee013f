"""What Google calls things, what its cards say, and how a video within an answer is written."""

from __future__ import annotations

import base64
import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from fakes.clip import small_mp4
from fakes.orders import order_of, png
from kinoloom.backends.google import shape
from kinoloom.backends.google.files import write_video
from kinoloom.backends.google.veo import support_codes
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidMedia, NetworkFailed, TooLarge

CARDS = [card for card in Catalog.load() if card.backend == "google"]
KNOWN = {"360p", "720p", "1080p", "4k"}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_everything_that_a_card_allows_has_a_name(card: ModelCard) -> None:
    for width, height in card.sizes.native:
        take = order_of(card, width=width, height=height).take
        assert shape.resolution(take) in KNOWN
        assert shape.aspect_ratio(take) == ("16:9" if width > height else "9:16")
        assert max(width, height) * 9 == min(width, height) * 16
    for frames in range(card.frames.minimum, card.frames.maximum + 1, card.frames.multiple):
        take = order_of(card, frames=frames).take
        assert shape.seconds(take) * card.fps.default == frames
    for task in card.tasks:
        shape.check(order_of(card, task), card)  # the defaults are possible for every task
    assert {p.class_name for p in card.pipelines.values()} in ({"omni"}, {"veo"})


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_card_is_priced_and_doubted_or_retired(card: ModelCard) -> None:
    if card.retirement is not None:
        assert card.retirement < datetime.date(2026, 11, 21)
        assert card.successor in {other.id for other in CARDS if other.retirement is None}
        return
    assert card.price is not None
    assert card.price != "free"
    assert not card.price.verified
    assert any("price" in doubt for doubt in card.unverified)
    amounts = [rate.amount for rate in card.price.rates]
    assert all(Decimal("0.01") < amount < 1 for amount in amounts)
    for size in card.sizes.native:
        assert card.price.of_clip(size, 8, True) is not None


def test_prices_are_those_of_the_resolution_and_the_sound() -> None:
    veo = Catalog.load().get("google-veo-3.1")
    assert veo.price is not None
    assert veo.price != "free"
    assert veo.price.of_clip((1080, 1920), 8, False) == Decimal("1.60")
    assert veo.price.of_clip((1280, 720), 4, True) == Decimal("1.60")
    assert veo.price.of_clip((3840, 2160), 8, False) is None  # not known, never free


def test_a_seed_keeps_its_last_bits() -> None:
    take = order_of(CARDS[0], seed=2**40 + 9).take
    assert (shape.seed(take, 31), shape.seed(take, 64)) == (9, 2**40 + 9)


def test_pictures_come_in_googles_order(tmp_path: Path) -> None:
    names = ["references.10", "references.2", "last_image", "image"]
    inputs = {name: png(tmp_path / name) for name in names}
    found = shape.pictures(order_of(CARDS[0], inputs=inputs))
    assert [p.name for p in found] == ["image", "last_image", "references.2", "references.10"]


def test_support_codes_are_eight_digits_and_say_something() -> None:
    codes = support_codes()
    assert len(codes) == 25
    assert all(len(code) == 8 and code.isdigit() for code in codes)
    assert codes["61493863"] == "violence"


def test_a_video_is_written_from_base64_and_from_bytes(tmp_path: Path) -> None:
    video = small_mp4()
    for data in (base64.b64encode(video).decode(), video):
        target = write_video(data, tmp_path / "a.mp4")
        assert target.read_bytes() == video
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_a_video_of_several_blocks_is_whole(tmp_path: Path, size: int) -> None:
    video = (b"\0\0\0\x18ftypisom" + bytes(range(256)) * (size // 256 + 1))[:size]
    text = base64.b64encode(video).decode()
    assert write_video(text, tmp_path / "a.mp4").read_bytes() == video


def test_what_cannot_be_a_video_leaves_nothing(tmp_path: Path) -> None:
    video = small_mp4()
    text = base64.b64encode(video).decode()
    with pytest.raises(NetworkFailed):
        write_video(text[:-6] + "!!" + text[-4:], tmp_path / "a.mp4")
    for nothing in ("", b"", b"<html>", base64.b64encode(b"<html></html>").decode()):
        with pytest.raises(InvalidMedia):
            write_video(nothing, tmp_path / "a.mp4")
    with pytest.raises(TooLarge):
        write_video(video, tmp_path / "a.mp4", limit=100)
    assert not list(tmp_path.iterdir())
