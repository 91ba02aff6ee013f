"""What do the tests of child processes share: how to start one, and a question for it?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinoloom.jobs.render_process import RenderProcess

linux = pytest.mark.skipif(sys.platform != "linux", reason="a means of Linux")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")
Start = Callable[..., RenderProcess]


def size_of(process: RenderProcess, file: Path, **options: Any) -> tuple[int, int]:
    facts = process.call("probe", {"path": str(file)}, **options)
    return facts["width"], facts["height"]
