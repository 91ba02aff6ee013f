from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.backends.comfyui.outputs import files, video
from kinoloom.errors import InvalidMedia

SAVE_VIDEO = {
    "images": [{"filename": "a_00001_.mp4", "subfolder": "video", "type": "output"}],
    "animated": [True],
}
COMBINE = {
    "gifs": [
        {
            "filename": "b_00001.mp4",
            "subfolder": "",
            "type": "output",
            "format": "video/h264-mp4",
            "frame_rate": 8.0,
            "workflow": "b_00001.png",
            "fullpath": "/comfy/output/b_00001.mp4",
        }
    ]
}
PICTURES = {
    "images": [
        {"filename": f"c_{i:05}_.png", "subfolder": "", "type": "output"} for i in range(1, 4)
    ]
}


def one(name: str, kind: str = "output", **more: Any) -> dict[str, Any]:
    return {"filename": name, "subfolder": "", "type": kind} | more


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (SAVE_VIDEO, "a_00001_.mp4"),
        (COMBINE, "b_00001.mp4"),
        ({"videos": [one("d.webm")]}, "d.webm"),
        ({"files": [one("E.MP4")]}, "E.MP4"),
        ({"video": [one("f.mov")], "text": ["done"]}, "f.mov"),
        ({"gifs": [one("g.gif", format="image/gif")]}, "g.gif"),
        ({"gifs": [one("h.webp", format="image/webp")]}, "h.webp"),
        ({"images": [one("i.webp")], "animated": [True]}, "i.webp"),
        ({"images": [one("j.png")], "animated": [True]}, "j.png"),
        ({"a_latent": [one("k.bin", format="video/x-raw")]}, "k.bin"),
    ],
)
def test_a_video_is_found_under_any_key(shown: dict[str, Any], name: str) -> None:
    found, count = video({"9": shown})
    assert (found.filename, count) == (name, 1)


def test_where_the_file_lies_is_kept() -> None:
    found, _ = video({"9": SAVE_VIDEO})
    assert (found.node, found.subfolder, found.type) == ("9", "video", "output")
    assert found.suffix == ".mp4"


def test_what_is_saved_counts_before_a_temporary_preview() -> None:
    found, count = video(
        {"1": {"gifs": [one("saved.mp4")]}, "2": {"gifs": [one("preview.mp4", "temp")]}}
    )
    assert (found.filename, count) == ("saved.mp4", 1)


def test_a_saved_animation_counts_before_a_temporary_video() -> None:
    found, _ = video({"1": {"gifs": [one("preview.mp4", "temp"), one("saved.gif")]}})
    assert found.filename == "saved.gif"


def test_a_temporary_video_is_taken_when_nothing_else_is_there() -> None:
    found, _ = video({"1": PICTURES, "2": {"gifs": [one("preview.mp4", "temp")]}})
    assert found.filename == "preview.mp4"


def test_a_video_counts_before_an_animation_and_pictures() -> None:
    found, count = video(
        {
            "1": PICTURES,
            "2": {"gifs": [one("a.gif")]},
            "3": SAVE_VIDEO,
            "4": {"gifs": [one("b.gif")]},
        }
    )
    assert (found.filename, count) == ("a_00001_.mp4", 1)


def test_of_several_videos_the_last_one_is_taken() -> None:
    found, count = video({"1": {"gifs": [one("raw.mp4")]}, "2": {"gifs": [one("large.mp4")]}})
    assert (found.filename, count) == ("large.mp4", 2)


def test_pictures_alone_are_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidMedia, match="single pictures") as caught:
        video({"9": PICTURES})
    assert "3" in caught.value.cause
    assert "SaveVideo" in caught.value.hints[0]


def test_a_picture_in_webp_is_no_video() -> None:
    with pytest.raises(InvalidMedia, match="single pictures"):
        video({"9": {"images": [one("still.webp")], "animated": [False]}})


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"9": {"text": ["a.mp4"]}},
        {"9": None},
        {"9": {"images": "a.mp4"}},
        {"9": {"images": [None, 3, {"filename": ""}, {"filename": 7}, {"subfolder": "x"}]}},
        {"9": {"images": [{"filename": "x" * 5000 + ".mp4", "type": "output"}]}},
        {"9": {"images": [{"filename": "a.mp4", "subfolder": ["x"], "type": "output"}]}},
        {"9": {"audio": [one("sound.flac")]}},
    ],
)
def test_an_output_without_a_video_is_refused(outputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidMedia, match="without a video"):
        video(outputs)


def test_a_kind_of_folder_that_there_is_not_is_not_passed_on() -> None:
    (found,) = files({"9": {"gifs": [one("a.mp4", "../../etc")]}})
    assert found.type == "output"


def test_the_node_that_the_user_names_is_the_one() -> None:
    outputs = {"1": {"gifs": [one("raw.mp4")]}, "2": {"gifs": [one("large.mp4")]}}
    found, count = video(outputs, "1")
    assert (found.filename, count) == ("raw.mp4", 1)
    with pytest.raises(InvalidMedia):
        video(outputs, "3")


_ENTRY = st.fixed_dictionaries(
    {},
    optional={
        k: st.none() | st.integers() | st.sampled_from(["a.mp4", "b.png", "", "output", "temp"])
        for k in ("filename", "subfolder", "type", "format")
    },
)


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.none()
        | st.dictionaries(
            st.sampled_from(["gifs", "images", "animated"]),
            st.lists(_ENTRY | st.booleans() | st.text(max_size=3), max_size=3) | st.integers(),
        ),
        max_size=3,
    )
)
def test_whatever_a_node_tells_it_is_a_file_or_a_clear_error(outputs: dict[str, Any]) -> None:
    try:
        found, count = video(outputs)
    except InvalidMedia:
        return
    assert found.rank > 0
    assert count >= 1
