"""Is a key one that can be sent?"""

from __future__ import annotations

import re

from kinoloom.errors import NotAuthenticated


def checked_key(key: str, service: str, *, hint: str) -> str:
    """The key without the blanks around it, which come along when it is copied; "" for none.

    Raises NotAuthenticated, with `hint` and without the key, when it holds what no header may hold:
    sent anyway it would fail halfway, where nobody can tell whether an order went with it.
    """
    bare = key.strip()
    if not re.fullmatch(r"[\x21-\x7e]*", bare):
        raise NotAuthenticated(
            f"The key for {service} is not one.",
            cause="It holds blanks or characters that keys do not have.",
            hints=[hint],
        )
    return bare
