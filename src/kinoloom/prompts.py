"""Which prompts does a file hold?"""

from __future__ import annotations

import sys
from pathlib import Path

from kinoloom.errors import InvalidMedia

MAX_BYTES = 10_000_000
"""A list of prompts is text; anything larger is another kind of file."""


def read_prompts(file: Path) -> list[str]:
    """The prompts in a text file (``-``: standard input), one a line.

    Empty lines and lines that begin with ``#`` are left out. Raises InvalidMedia for a file that
    cannot be read or holds no prompt.
    """
    try:
        if str(file) == "-":
            text = sys.stdin.read(MAX_BYTES + 1)
        else:
            with file.open(encoding="utf-8") as stream:
                text = stream.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        cause = "it is not UTF-8 text" if isinstance(error, ValueError) else error.strerror
        raise InvalidMedia(
            f"The prompts in {file} cannot be read.",
            cause=str(cause),
            hints=["give a text file with a prompt a line"],
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts or len(text) > MAX_BYTES:
        cause = "it has no line with a prompt" if not prompts else f"it is over {MAX_BYTES} bytes"
        raise InvalidMedia(f"{file} is no list of prompts.", cause=cause)
    return prompts
