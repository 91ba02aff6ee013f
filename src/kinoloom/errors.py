"""What can go wrong, and what can the user do about it?

Every failure with a known cause reaches the user as one of these: what failed, why, and the next
step. The kinds are stable words that programs may match on; the command line prints them before the
message and the JSON events carry them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Literal


class ErrorKind(StrEnum):
    """The kinds of error, in the words that programs see."""

    INVALID_PARAMS = "invalid_params"
    INVALID_MEDIA = "invalid_media"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_BROKEN = "model_broken"
    LICENCE_NOT_ACCEPTED = "licence_not_accepted"
    DOWNLOAD_FAILED = "download_failed"
    MISSING_PACKAGE = "missing_package"
    INSUFFICIENT_VRAM = "insufficient_vram"
    OUTPUT_FAILED = "output_failed"
    STORE_BROKEN = "store_broken"
    WORKER_UNAVAILABLE = "worker_unavailable"
    TIMEOUT = "timeout"
    NETWORK_ERROR = "network_error"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    AUTHENTICATION = "authentication"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXCEEDED = "budget_exceeded"
    QUOTA_EXCEEDED = "quota_exceeded"
    CONTENT_REJECTED = "content_rejected"
    PROVIDER_RETIRED = "provider_retired"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Recovery:
    """What a kind of error means for the job: whether the same may be tried again (`later`: after a
    pause), whether another backend may do it (`ask`: only if the user said so), and the next step
    where an error names none itself."""

    retry: Literal["no", "later"]
    fall_back: Literal["yes", "no", "ask"]
    next: tuple[str, ...]


class KinoloomError(Exception):
    """A failure with a known kind.

    `message` says what failed, `cause` why, `hints` what to do next, most useful first. `details`
    are facts for programs, JSON-ready, such as the model files that are missing.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        cause: str = "",
        hints: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hints = tuple(hints)
        self.details = dict(details or {})

    @property
    def recovery(self) -> Recovery:
        """What this kind of error means for a job."""
        return recovery_of(self.kind)

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON-ready data: kind, message, cause, hints, and details if it has any."""
        told: dict[str, Any] = {
            "kind": str(self.kind),
            "message": self.message,
            "cause": self.cause,
            "hints": list(self.hints),
        }
        return told | ({"details": self.details} if self.details else {})


@dataclass(frozen=True)
class Problem:
    """One mistake in a request: the field, its value, what is allowed and the nearest valid one."""

    field: str
    value: Any
    allowed: str
    nearest: Any = None

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > 60:
            shown = shown[:57] + "..."
        text = f"{self.field} = {shown}: allowed is {self.allowed}"
        return text if self.nearest is None else f"{text}; nearest is {self.nearest}"


class InvalidRequest(KinoloomError):
    """The request has mistakes; `problems` lists every one of them."""

    kind = ErrorKind.INVALID_PARAMS

    def __init__(
        self, problems: Sequence[Problem], *, message: str = "", hints: Sequence[str] = ()
    ) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(
            message or f"The request has {count} mistake{'s' if count != 1 else ''}.",
            cause="\n".join(str(p) for p in self.problems),
            hints=hints,
        )

    def as_dict(self) -> dict[str, Any]:
        problems = [
            {
                "field": p.field,
                "value": p.value if isinstance(p.value, int | float | str | None) else str(p.value),
                "allowed": p.allowed,
                "nearest": p.nearest,
            }
            for p in self.problems
        ]
        return super().as_dict() | {"problems": problems}


class InvalidMedia(KinoloomError):
    """A picture or video that was given cannot be used: missing, corrupt, too large, not media."""

    kind = ErrorKind.INVALID_MEDIA


class ModelNotFound(KinoloomError):
    """No model card has that name, or its weights are not on this machine."""

    kind = ErrorKind.MODEL_NOT_FOUND


class ModelBroken(KinoloomError):
    """The model's files are there but cannot be loaded."""

    kind = ErrorKind.MODEL_BROKEN


class LicenceNotAccepted(KinoloomError):
    """The model's licence asks for something that the user has not done yet."""

    kind = ErrorKind.LICENCE_NOT_ACCEPTED


class DownloadFailed(KinoloomError):
    """A model cannot be downloaded: no network, no access, or what arrives is not what it is."""

    kind = ErrorKind.DOWNLOAD_FAILED


class MissingPackage(KinoloomError):
    """A Python package that this needs is not installed."""

    kind = ErrorKind.MISSING_PACKAGE


class InsufficientMemory(KinoloomError):
    """The device's memory does not hold the model and its work."""

    kind = ErrorKind.INSUFFICIENT_VRAM


class OutputFailed(KinoloomError):
    """The result cannot be written: no permission, no such place, disk full."""

    kind = ErrorKind.OUTPUT_FAILED


class StoreBroken(KinoloomError):
    """Kinoloom's own data folder cannot be read: damaged, or written by a newer version."""

    kind = ErrorKind.STORE_BROKEN


class WorkerUnavailable(KinoloomError):
    """Nothing that renders is there, or it died or hung while it rendered."""

    kind = ErrorKind.WORKER_UNAVAILABLE


class TimedOut(KinoloomError):
    """The work took longer than its deadline."""

    kind = ErrorKind.TIMEOUT


class NetworkFailed(KinoloomError):
    """An address cannot be reached, or must not be."""

    kind = ErrorKind.NETWORK_ERROR


class NotFound(KinoloomError):
    """There is no job, clip or key of that id."""

    kind = ErrorKind.NOT_FOUND


class Conflict(KinoloomError):
    """What is asked for does not go with the state that something is in."""

    kind = ErrorKind.CONFLICT


class TooLarge(KinoloomError):
    """What was sent is larger than this server takes."""

    kind = ErrorKind.TOO_LARGE


class NotAuthenticated(KinoloomError):
    """A key is needed, or the one that was given is not valid."""

    kind = ErrorKind.AUTHENTICATION


class Forbidden(KinoloomError):
    """The key does not allow this."""

    kind = ErrorKind.FORBIDDEN


class RateLimited(KinoloomError):
    """Too many requests; `retry_after` is the seconds to wait."""

    kind = ErrorKind.RATE_LIMITED

    def __init__(
        self,
        message: str,
        *,
        cause: str = "",
        hints: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(message, cause=cause, hints=hints, details=details)
        self.retry_after = retry_after


class BudgetExceeded(KinoloomError):
    """The key's budget does not cover what this would cost."""

    kind = ErrorKind.BUDGET_EXCEEDED


class QuotaExceeded(KinoloomError):
    """The account at a service has no credit, or may not make more for now."""

    kind = ErrorKind.QUOTA_EXCEEDED


class ContentRejected(KinoloomError):
    """A service refuses the words, the pictures or its own result for what they show."""

    kind = ErrorKind.CONTENT_REJECTED


class ProviderRetired(KinoloomError):
    """The model, or the interface to it, was switched off by who offered it."""

    kind = ErrorKind.PROVIDER_RETIRED


class Uncertain(KinoloomError):
    """Nobody here knows whether a service accepted a call, so it must not be made again."""

    kind = ErrorKind.UNCERTAIN


class Cancelled(KinoloomError):
    """The user stopped the work; nothing partial is left behind."""

    kind = ErrorKind.CANCELLED


def error_of(
    kind: str,
    message: str,
    *,
    cause: str = "",
    hints: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> KinoloomError:
    """An error of the class that a kind belongs to; of an unknown kind a plain `KinoloomError`."""
    if kind == InvalidRequest.kind:
        problem = InvalidRequest([], message=message, hints=hints)
        problem.cause, problem.details = cause, dict(details or {})
        return problem
    found = _classes().get(kind, KinoloomError)
    return found(message, cause=cause, hints=hints, details=details)


def recovery_of(kind: ErrorKind) -> Recovery:
    """What a kind of error means for a job; see ``error_kinds.yaml``."""
    return _recoveries()[kind]


@cache
def _classes() -> dict[str, type[KinoloomError]]:
    # Other modules have errors of their own, which are of one of these kinds.
    mine = [c for c in KinoloomError.__subclasses__() if c.__module__ == __name__]
    return {str(found.kind): found for found in mine}


@cache
def _recoveries() -> dict[ErrorKind, Recovery]:
    from importlib import resources

    import yaml

    text = (resources.files("kinoloom") / "error_kinds.yaml").read_text(encoding="utf-8")
    return {
        ErrorKind(kind): Recovery(entry["retry"], entry["fall_back"], tuple(entry["next"]))
        for kind, entry in yaml.safe_load(text).items()
    }


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that look most like `name`, best first; empty when none is close."""
    return difflib.get_close_matches(name.lower(), list(known), n=count, cutoff=0.5)
