"""How are videos in a bucket of Google Cloud Storage found and downloaded?

By its JSON API (https://cloud.google.com/storage/docs/json_api): a few reads need no client of
Google's.
``STORAGE_EMULATOR_HOST`` names another address, as for Google's own client.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from kinoloom.backends.google.answers import Answer
from kinoloom.backends.remote.download import download
from kinoloom.backends.remote.retries import read_again
from kinoloom.errors import NetworkFailed, NotFound

_STORAGE = "https://storage.googleapis.com"
_SECONDS = 60.0


def videos_under(folder: str, token: str) -> list[str]:
    """The addresses (gs://) of the MP4 files below a folder (gs://bucket/folder/), sorted."""
    bucket, prefix = _parts(folder)
    listed = _read(f"b/{quote(bucket, safe='')}/o", token, prefix=prefix, fields="items(name)")
    names = [str(item["name"]) for item in listed.get("items", [])]
    return sorted(f"gs://{bucket}/{name}" for name in names if name.endswith(".mp4"))


def fetch(uri: str, token: str, target: Path) -> None:
    """Download the file at `uri` (gs://bucket/name) to `target`.

    Raises NotFound where it is not there, Forbidden where the account may not read it.
    """
    bucket, name = _parts(uri)
    path = f"b/{quote(bucket, safe='')}/o/{quote(name, safe='')}"
    _read(path, token, fields="size")  # a download cannot tell what is gone from what is forbidden
    download(
        f"{_host()}/storage/v1/{path}?alt=media",
        target,
        trusted="STORAGE_EMULATOR_HOST" in os.environ,
        headers={"Authorization": f"Bearer {token}"},
    )


def _read(path: str, token: str, **query: str) -> dict[str, Any]:
    """What a path of the API answers, asked again while that may help."""

    def once() -> dict[str, Any]:
        try:
            response = httpx.get(
                f"{_host()}/storage/v1/{path}",
                params=query,
                headers={"Authorization": f"Bearer {token}"},
                timeout=_SECONDS,
            )
        except httpx.HTTPError as error:
            raise NetworkFailed(
                "Google Cloud Storage does not answer.", cause=type(error).__name__
            ) from None
        if response.status_code == 404:
            raise NotFound(
                "The finished video is not in the bucket any more.",
                hints=["Somebody moved or deleted it, or the bucket deletes what is old."],
            )
        if response.status_code != 200:
            raise Answer(response.status_code, text=_message(response)).error()
        found: dict[str, Any] = response.json()
        return found

    return read_again(once)


def _host() -> str:
    named = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if named and "://" not in named:
        named = f"http://{named}"
    return named or _STORAGE


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


def _message(response: httpx.Response) -> str:
    try:
        told = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(told)
