"""What does a storyboard look like to somebody who has none yet?"""

from __future__ import annotations

import json
from importlib import resources

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.film.fields import MAX_TITLE
from kinoloom.request_checks import Wrong, shown, text

_TITLE = "title: Untitled\n"


def sample(title: str = "Untitled") -> str:
    """A commented storyboard as YAML, which loads as it is.

    Raises InvalidRequest for a title that no film can have: it has 1 to 200 characters.
    """
    try:
        words = text(title)
        if not 1 <= len(words) <= MAX_TITLE:
            raise Wrong(f"text of 1 to {MAX_TITLE} characters")
    except Wrong as wrong:
        raise InvalidRequest([Problem("title", shown(title), wrong.allowed)]) from None
    file = resources.files("kinoloom.film") / "storyboard.yaml"
    # Quoted as JSON does it, whatever stands in it is text in YAML too.
    quoted = json.dumps(words, ensure_ascii=False)
    return file.read_text(encoding="utf-8").replace(_TITLE, f"title: {quoted}\n", 1)
