"""Where does a benchmark keep its clips? In a data folder of its own, gone afterwards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_place() -> Iterator[Path]:
    """Let Kinoloom, also in programs that are started meanwhile, use an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KINOLOOM_HOME"] = str(Path(folder) / "home")
        os.environ["KINOLOOM_OUTPUTS"] = str(Path(folder) / "outputs")
        yield Path(folder)
