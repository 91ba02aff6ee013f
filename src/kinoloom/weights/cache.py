"""Where does Hugging Face's cache keep a repository on this disk?

The layout is huggingface_hub's own, so that what was downloaded by any program is found, and found
without that package.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAFE_REF = re.compile(r"(?!\.)[\w.+-]+(/(?!\.)[\w.+-]+)*")


def cache_root() -> Path:
    """The folder of the cache: HF_HUB_CACHE, else ``hub`` in HF_HOME, else the usual place."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(name):
            return _expanded(value)
    if value := os.environ.get("HF_HOME"):
        return _expanded(value) / "hub"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (_expanded(cache) if cache else Path.home() / ".cache") / "huggingface" / "hub"


def repo_folder(repo: str) -> Path:
    """The folder that holds all of one repository; it need not exist."""
    return cache_root() / f"models--{repo.replace('/', '--')}"


def snapshots(repo: str, revision: str | None = None, pinned: str | None = None) -> list[Path]:
    """The folders of a repository's revisions that are here, the one to use first.

    A `revision` allows no other; a `pinned` commit comes before the branch ``main``, and this
    before whatever else was downloaded, the newest first.
    """
    base = repo_folder(repo)
    if revision is not None:
        commits = [_commit(base, revision)]
    else:
        commits = [pinned, _commit(base, "main"), *_newest_first(base / "snapshots")]
    folders = [base / "snapshots" / c for c in dict.fromkeys(commits) if c is not None]
    return [f for f in folders if f.is_dir()]


def commit_of(folder: Path) -> str | None:
    """The commit of a folder inside a snapshot of the cache; None elsewhere."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and _COMMIT.fullmatch(place.name):
            return place.name
    return None


def is_commit(text: str) -> bool:
    """Whether this is a commit's full hash, which can name a folder and nothing else."""
    return _COMMIT.fullmatch(text) is not None


def _commit(base: Path, revision: str) -> str | None:
    """The commit that a branch or tag stood for when it was downloaded, or the commit itself."""
    if _COMMIT.fullmatch(revision):
        return revision
    if not _SAFE_REF.fullmatch(revision):
        return None
    try:
        text = (base / "refs" / revision).read_text(encoding="ascii")[:64].strip()
    except (OSError, ValueError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _newest_first(folder: Path) -> list[str]:
    try:
        found = [f for f in folder.iterdir() if _COMMIT.fullmatch(f.name)]
        return [f.name for f in sorted(found, key=lambda f: f.stat().st_mtime, reverse=True)]
    except OSError:
        return []


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
