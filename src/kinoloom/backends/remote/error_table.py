"""What does a service's answer mean in our words?

The answers of each service are data, ``errors/NAME.yaml``: a list of rules, of which the first that
matches counts.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from kinoloom.errors import ErrorKind, KinoloomError, RateLimited, error_of

_SHOWN = 500
"""Characters of a service's own words that are passed on."""
# What a service echoes may hold what was sent: keys, and whole pictures as base64.
_SECRETS = re.compile(
    r"(?i)(bearer\s+|api[_-]?key[\"'=:\s]+|token[\"'=:\s]+)[\w.~+/=-]{6,}|"
    r"\b(sk|key|r8|whsec|kl)[_-][\w-]{6,}|\bAIza[\w-]{20,}|(data:[\w/+.-]+;base64,)?[A-Za-z0-9+/]{200,}={0,2}"
)


class Rule(BaseModel):
    """When it matches, and what it means.

    `status` are HTTP statuses or states; `code` and `text` regular expressions, found anywhere in
    the service's code and words, whatever their case. What is not given always matches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: list[int | str] | None = None
    code: re.Pattern[str] | None = None
    text: re.Pattern[str] | None = None
    kind: ErrorKind
    message: str = Field(min_length=1)
    hints: list[str] = []

    @field_validator("code", "text", mode="before")
    @classmethod
    def _any_case(cls, pattern: Any) -> Any:
        return re.compile(pattern, re.IGNORECASE) if isinstance(pattern, str) else pattern

    def matches(self, status: int | str | None, code: str, text: str) -> bool:
        """Whether an answer is one of those that this rule is about."""
        return (
            (self.status is None or status in self.status)
            and (self.code is None or self.code.search(code) is not None)
            and (self.text is None or self.text.search(text) is not None)
        )


class ErrorTable:
    """The rules of one service."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules

    @classmethod
    def of(cls, service: str) -> ErrorTable:
        """The rules in ``errors/SERVICE.yaml`` of this package."""
        return _table(service)

    def error(
        self,
        *,
        status: int | str | None = None,
        code: str = "",
        text: str = "",
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> KinoloomError:
        """The error that an answer stands for, with the service's own words as its cause.

        `retry_after` is in seconds. Of what no rule knows the kind is unknown.
        """
        cause = shown(": ".join(part for part in (code, text) if part))
        for rule in self._rules:
            if not rule.matches(status, code, text):
                continue
            hints = rule.hints
            if rule.kind is ErrorKind.RATE_LIMITED:
                wait = 1.0 if retry_after is None else retry_after
                return RateLimited(
                    rule.message, cause=cause, hints=hints, details=details, retry_after=wait
                )
            return error_of(rule.kind, rule.message, cause=cause, hints=hints, details=details)
        said = "" if status is None else f" ({status})"
        return KinoloomError(
            f"The service answered something that is not known here{said}.",
            cause=cause,
            details=details,
        )


def shown(text: str) -> str:
    """A service's words as they may be passed on: short, one line, without what may be secret."""
    line = " ".join(_SECRETS.sub("***", text).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


@cache
def _table(service: str) -> ErrorTable:
    file = resources.files("kinoloom.backends.remote") / "errors" / f"{service}.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    return ErrorTable([Rule.model_validate(entry) for entry in entries])
