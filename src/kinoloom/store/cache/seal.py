"""Are these bytes really what was put under this key?

A value is stored behind a digest of its key and itself, so what a full disk cut short, a bad sector
changed or another program wrote is noticed before anyone reads it.
"""

from __future__ import annotations

import hashlib
import re

_MAGIC = b"KLC1"
_DIGEST_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{16,128}")


def check_key(key: str) -> str:
    """`key`, which is a digest in hex, so that it names a file everywhere; else ValueError."""
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"a cache's key is a digest in hex, not {key[:40]!r}")
    return key


def seal(key: str, data: bytes) -> bytes:
    """`data` as it is stored: 4 bytes of magic, 32 of SHA-256, then itself."""
    return _MAGIC + _digest(key, data) + data


def unseal(key: str, stored: object) -> bytes | None:
    """The data that was sealed under `key`; None for anything else."""
    if not isinstance(stored, bytes) or not stored.startswith(_MAGIC):
        return None
    start = len(_MAGIC) + _DIGEST_BYTES
    data = stored[start:]
    return data if stored[len(_MAGIC) : start] == _digest(key, data) else None


def _digest(key: str, data: bytes) -> bytes:
    digest = hashlib.sha256(key.encode("ascii") + b"\0")
    digest.update(data)
    return digest.digest()
