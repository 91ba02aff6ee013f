from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinoloom.errors import InvalidMedia, InvalidRequest
from kinoloom.film.sheet import MAX_HEIGHT, Row, contact_sheet
from kinoloom.media.images import load_image
from kinoloom.media.writer import write_video


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Thirty frames, each of a grey of its own: 8 x its number."""
    frames = np.repeat(np.arange(30, dtype=np.uint8) * 8, 48 * 64 * 3).reshape(30, 48, 64, 3)
    write_video(tmp_path / "film.mp4", frames, 24, format="mp4")
    return tmp_path / "film.mp4"


def tiles(sheet: np.ndarray, columns: int, rows: int, width: int) -> np.ndarray:
    """The grey in the middle of each tile."""
    tile = (width - 6 * (columns + 1)) // columns
    height = round(tile * 48 / 64)
    line = max(14, width // 80)
    ys = [6 + r * (line + height + 12) + line + 3 + height * 3 // 4 for r in range(rows)]
    xs = [6 + c * (tile + 6) + tile * 3 // 4 for c in range(columns)]
    return sheet[np.ix_(ys, xs)][..., 0].astype(int)


def test_each_row_shows_its_shots_frames(tmp_path: Path, film: Path) -> None:
    rows = [Row("shot-001", 0, 10), Row("shot-002 — a fox", 8, 12), Row("shot-003", 20, 2)]
    names = contact_sheet(film, tmp_path / "sheet.png", rows, columns=4, width=400)
    assert names == ("shot-001", "shot-002 — a fox", "shot-003")
    sheet = load_image(tmp_path / "sheet.png")
    assert sheet.shape[1] == 400
    seen = tiles(sheet, 4, 3, 400)
    assert np.abs(seen[0] - np.array([0, 3, 6, 9]) * 8).max() <= 3
    assert np.abs(seen[1] - np.array([8, 12, 15, 19]) * 8).max() <= 3
    assert np.abs(seen[2, :2] - np.array([20, 21]) * 8).max() <= 3
    assert (seen[2, 2:] == 24).all()  # the paper
    named = sheet[6:18, :120].max(axis=(0, 1))
    assert (named > 150).all()  # text stands there


def test_a_sheet_of_a_thousand_shots_is_bounded(tmp_path: Path, film: Path) -> None:
    rows = [Row(f"shot-{k:03}", k % 30, 1) for k in range(1000)]
    names = contact_sheet(film, tmp_path / "sheet.png", rows, columns=3, width=300)
    assert len(names) <= 200
    assert (names[0], names[-1]) == ("shot-000", "shot-999")
    assert load_image(tmp_path / "sheet.png").shape[0] <= MAX_HEIGHT


def test_a_very_high_film_does_not_make_a_higher_sheet(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", np.zeros((2, 2048, 8, 3), np.uint8), 24, format="mp4")
    contact_sheet(
        tmp_path / "film.mp4", tmp_path / "sheet.png", [Row("a", 0, 2)], columns=2, width=800
    )
    assert load_image(tmp_path / "sheet.png").shape[0] < 4100


def test_a_name_may_be_anything(tmp_path: Path, film: Path) -> None:
    contact_sheet(film, tmp_path / "sheet.png", [Row("a\nb\x00 終 🎬" * 200, 0, 1)], width=128)
    assert load_image(tmp_path / "sheet.png").shape[1] == 128


@pytest.mark.parametrize(
    ("rows", "more", "field"),
    [
        ([], {}, "rows"),
        ([Row("a", 0, 0)], {}, "rows[0]"),
        ([Row("a", -1, 5)], {}, "rows[0]"),
        ([Row("a", 0, 1)], {"columns": 0}, "columns"),
        ([Row("a", 0, 1)], {"width": 100_000}, "width"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, film: Path, rows: list[Row], more: dict[str, int], field: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        contact_sheet(film, tmp_path / "sheet.png", rows, **more)
    assert [p.field for p in error.value.problems] == [field]


def test_a_film_shorter_than_its_shots_is_named(tmp_path: Path, film: Path) -> None:
    with pytest.raises(InvalidMedia, match="shorter than its shots"):
        contact_sheet(film, tmp_path / "sheet.png", [Row("a", 20, 11)])
    assert not (tmp_path / "sheet.png").exists()
