from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.media.images import save_png
from kinoloom.media.sequence import MANIFEST, load_sequence, save_sequence

Clip = np.ndarray


@given(
    frames=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.just(3)),
    ),
    fps=st.sampled_from([8, 12.5, 23.976, 24, 60]),
    made_by=st.none() | st.dictionaries(st.sampled_from(["seed", "steps"]), st.integers()),
)
@settings(max_examples=25, deadline=None)
def test_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    frames: Clip,
    fps: float,
    made_by: dict[str, int] | None,
) -> None:
    folder = tmp_path_factory.mktemp("sequence") / "frames"
    save_sequence(folder, frames, fps, made_by)
    loaded, rate, settings_read = load_sequence(folder)
    assert np.array_equal(loaded, frames)
    assert rate == pytest.approx(fps, abs=0.001)
    assert settings_read == (None if made_by is None else {"kinoloom": 1, **made_by})


def test_a_changed_frame_is_noticed(tmp_path: Path, clip: Clip) -> None:
    save_sequence(tmp_path / "frames", clip[:3], 24)
    save_png(tmp_path / "frames" / "frame_000002.png", clip[5])
    with pytest.raises(InvalidMedia) as caught:
        load_sequence(tmp_path / "frames")
    assert "frame_000002.png" in caught.value.message


def test_a_missing_frame_is_named(tmp_path: Path, clip: Clip) -> None:
    save_sequence(tmp_path / "frames", clip[:3], 24)
    (tmp_path / "frames" / "frame_000003.png").unlink()
    with pytest.raises(InvalidMedia, match=r"frame_000003\.png does not exist"):
        load_sequence(tmp_path / "frames")


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{}",
        '{"fps": 24, "frames": []}',
        '{"fps": 24, "frames": [{"file": "../secret.png", "sha256": "%s"}]}' % ("0" * 64),
        '{"fps": 24, "frames": [{"file": "/etc/passwd", "sha256": "%s"}]}' % ("0" * 64),
        '{"fps": 24, "frames": [{"file": "frame_000001.png", "sha256": null}]}',
        '{"fps": 24, "frames": [{"file": "frame_000001.png"}]}',
        '{"fps": 0, "frames": [{"file": "frame_000001.png", "sha256": "x"}]}',
        '{"fps": "fast", "frames": 3}',
        "[" * 100_000,
    ],
)
def test_hostile_manifests(tmp_path: Path, clip: Clip, manifest: str) -> None:
    save_sequence(tmp_path / "frames", clip[:1], 24)
    (tmp_path / "frames" / MANIFEST).write_text(manifest)
    with pytest.raises(InvalidMedia):
        load_sequence(tmp_path / "frames")


def test_untrusted_settings_in_a_good_manifest_are_dropped(tmp_path: Path, clip: Clip) -> None:
    save_sequence(tmp_path / "frames", clip[:1], 24, {"seed": 1})
    path = tmp_path / "frames" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["settings"] = ["not", "an", "object"]
    path.write_text(json.dumps(manifest))
    assert load_sequence(tmp_path / "frames")[2] is None


def test_frames_of_another_program(tmp_path: Path, clip: Clip) -> None:
    for number in (10, 9, 1, 2):
        Image.fromarray(clip[number]).save(tmp_path / f"shot{number}.png")
    frames, fps, made_by = load_sequence(tmp_path)
    assert np.array_equal(frames, clip[[1, 2, 9, 10]])
    assert (fps, made_by) == (24, None)


def test_saving_again_replaces_only_a_sequence(tmp_path: Path, clip: Clip) -> None:
    folder = tmp_path / "frames"
    save_sequence(folder, clip[:5], 24)
    save_sequence(folder, clip[:2], 24)
    assert len(load_sequence(folder)[0]) == 2
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(OutputFailed):
        save_sequence(folder, clip[:1], 24)
    assert len(load_sequence(folder)[0]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames"]


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia):
        load_sequence(tmp_path / "missing")
