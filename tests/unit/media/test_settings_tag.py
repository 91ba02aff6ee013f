from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.media.settings_tag import MAX_SETTINGS_BYTES, decode_settings, encode_settings

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "kinoloom"), JSON, max_size=5))
def test_settings_come_back_as_they_were(settings: dict[str, object]) -> None:
    text = encode_settings(settings)
    assert text.isascii()
    assert decode_settings(text) == {"kinoloom": 1, **settings}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "made with love",
        "[1]",
        "{}",
        '{"kinoloom": "1"}',
        '{"kinoloom": true}',
        '{"kinoloom": 0}',
        '{"kinoloom": 1.0}',
        '{"kinoloom": 1, "seed": NaN}',
        '{"kinoloom": 1',
        "[" * 200_000,
        '{"kinoloom": 1, "prompt": "' + "x" * MAX_SETTINGS_BYTES + '"}',
    ],
)
def test_what_we_did_not_write_is_no_settings(text: str | None) -> None:
    assert decode_settings(text) is None


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_settings_or_none(text: str) -> None:
    found = decode_settings(text)
    assert found is None or found["kinoloom"] >= 1


def test_settings_that_no_file_should_carry_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        encode_settings({"prompt": "x" * MAX_SETTINGS_BYTES})
    with pytest.raises(ValueError, match=r"JSON|float"):
        encode_settings({"guidance": float("nan")})
    assert encode_settings(None) == ""
