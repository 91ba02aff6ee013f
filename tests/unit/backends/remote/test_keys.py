from __future__ import annotations

import pytest

from kinoloom.backends.remote.keys import checked_key
from kinoloom.errors import NotAuthenticated


@pytest.mark.parametrize(
    ("key", "bare"), [("key_1", "key_1"), (" key_1\n", "key_1"), ("", ""), (" ", "")]
)
def test_blanks_around_a_key_are_left_out(key: str, bare: str) -> None:
    assert checked_key(key, "Runway", hint="Set it.") == bare


@pytest.mark.parametrize("key", ["two words", "kéy_secret", "a\nb", "a\0b"])
def test_what_no_header_may_hold_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        checked_key(key, "Runway", hint="Set it.")
    assert caught.value.hints == ("Set it.",)
    assert key not in str(caught.value.as_dict())
