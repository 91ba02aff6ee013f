"""How is Replicate spoken to over HTTP?

Reads are made again when they fail for a while; a prediction is created by exactly one request, on
a connection of its own, so that what was never connected is known never to have been sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.backends.remote.retries import read_again
from kinoloom.backends.remote.sending import FRESH, unanswered
from kinoloom.errors import KinoloomError, NetworkFailed, Uncertain

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_UPLOAD_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_MOST_PAGES = 20
_LOOK = "Look for it at https://replicate.com/predictions"
# The service's own words for how long to wait, where it sends no header; documented at
# https://replicate.com/docs/topics/predictions/rate-limits
_RESETS = re.compile(r"resets in ~?(\d{1,5})\s*s")


class Api:
    """Replicate's HTTP API with one token. Threads may share it."""

    def __init__(
        self, base_url: str, token: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._sleep = sleep
        self.here = urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
        """Whether it is on this machine, and so may have its files here."""
        self._options: dict[str, Any] = {"trust_env": not self.here, "follow_redirects": False}
        self._client = httpx.Client(timeout=_TIMEOUT, **self._options)

    @property
    def authorization(self) -> dict[str, str]:
        """The header that files on the API's own host want."""
        return {"Authorization": f"Bearer {self._token}"}

    def serves(self, url: str) -> bool:
        """Whether an address is one of the API's own."""
        return urlsplit(url)[:2] == urlsplit(self.base_url)[:2]

    def read(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The object that a GET answers. Raises the error that the answer stands for."""
        return self._again("GET", path, params)[0]

    def change(self, path: str) -> dict[str, Any]:
        """The object that a POST without a body answers, one that may be made again."""
        return self._again("POST", path, None)[0]

    def create(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        """What the one request that makes something answers.

        Raises Uncertain when nobody can say whether it was accepted; any other error says that it
        was not.
        """
        try:
            with httpx.Client(timeout=_TIMEOUT, limits=FRESH, **self._options) as client:
                answer = client.post(
                    self.base_url + path, json=body, headers={**self.authorization, **headers}
                )
        except httpx.HTTPError as error:
            raise unanswered(error, "Replicate", hints=[_LOOK]) from None
        if 400 <= answer.status_code < 500 and answer.status_code != 408:
            raise _error_of(answer)
        if not answer.is_success:
            raise _uncertain(f"It answered {answer.status_code}: {shown(answer.text)}")
        try:
            return answer.json()
        except ValueError:
            raise _uncertain("What it answered cannot be read.") from None

    def upload(self, file: Path, key: str) -> str:
        """The address of a file that was uploaded; it is removed there after a day."""

        def once() -> dict[str, Any]:
            with file.open("rb") as opened:
                part = {"content": (f"{key}{file.suffix}", opened, "image/png")}
                return self._once("POST", "/v1/files", files=part, timeout=_UPLOAD_TIMEOUT)[0]

        answer = read_again(once, sleep=self._sleep)
        urls = answer.get("urls")
        address = urls.get("get") if isinstance(urls, dict) else None
        if not isinstance(address, str):
            raise NetworkFailed("Replicate took a file and does not say where it is.")
        return address

    def predictions(self, after: datetime) -> tuple[list[dict[str, Any]], float]:
        """The predictions created since `after`, and how far the service's clock is ahead of ours
        in seconds.

        Raises Uncertain when there are too many to be read.
        """
        found: list[dict[str, Any]] = []
        path: str | None = "/v1/predictions"
        stamp = after.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        params: dict[str, str] | None = {"created_after": stamp}
        ahead = 0.0
        for _ in range(_MOST_PAGES):
            page, ahead = self._again("GET", str(path), params)
            results = page.get("results")
            found += (
                [p for p in results if isinstance(p, dict)] if isinstance(results, list) else []
            )
            following = page.get("next")
            if not isinstance(following, str):
                return found, ahead
            address = urljoin(self.base_url, following)
            if not self.serves(address):  # the token goes to no other host
                break
            parts = urlsplit(address)
            path, params = f"{parts.path}?{parts.query}", None
        raise Uncertain(
            "Replicate lists too many predictions to find one of them.",
            hints=[_LOOK],
        )

    def _again(
        self, method: str, path: str, params: Mapping[str, str] | None
    ) -> tuple[dict[str, Any], float]:
        return read_again(lambda: self._once(method, path, params=params), sleep=self._sleep)

    def _once(self, method: str, path: str, **options: Any) -> tuple[dict[str, Any], float]:
        try:
            answer = self._client.request(
                method, self.base_url + path, headers=self.authorization, **options
            )
        except httpx.HTTPError as error:
            raise _unreachable(error) from None
        if not answer.is_success:
            raise _error_of(answer)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NetworkFailed("What Replicate answered cannot be read.")
        return found, _ahead(answer.headers.get("date", ""))


def _error_of(answer: httpx.Response) -> KinoloomError:
    """The error that an answer stands for; its body is ``{title, detail, status}``."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    detail = told.get("detail") or told.get("error") or ("" if told else answer.text)
    title = told.get("title")
    text = ": ".join(str(part) for part in (title, detail) if part)
    wait = answer.headers.get("retry-after", "")
    resets = _RESETS.search(text)
    seconds = float(wait) if wait.isdecimal() else float(resets[1]) if resets else None
    table = ErrorTable.of("replicate")
    return table.error(status=answer.status_code, text=text, retry_after=seconds)


def _unreachable(error: Exception) -> NetworkFailed:
    # Of the error only its name: a proxy's address may hold a password.
    return NetworkFailed(
        "Replicate cannot be reached.",
        cause=type(error).__name__,
        hints=["Check the connection, and backends.replicate.base_url if it is set."],
    )


def _uncertain(cause: str) -> Uncertain:
    return Uncertain(
        "Nobody knows whether Replicate accepted the order.",
        cause=cause,
        hints=[_LOOK],
    )


def _ahead(date: str) -> float:
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):  # none, or one without a zone
        return 0.0
