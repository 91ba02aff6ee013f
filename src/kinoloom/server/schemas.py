"""What do the answers of the API look like?

Each model is the answer of a route or a part of one; the OpenAPI document, and with it the clients
that are generated from it, come from here. What a record keeps as JSON (a request, a plan, scores)
stays JSON: it may have been written by another version. No answer names a place on the server's
disk: a file of the store is shown by its digest, any other by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import PurePath
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord, JobState
from kinoloom.store.money import plain_or_none
from kinoloom.store.remote_calls import Group

T = TypeVar("T")

_COST = (
    "what services charged for it, as an exact decimal number such as 0.6; null where nothing was"
    " paid or it is not known"
)

DIGEST = r"^sha256:[0-9a-f]{64}$"
"""The name of a file by its content, as a pattern."""

_FILES = ("image", "last_image", "video", "mask", "references", "keyframes")
_PLACES = frozenset({"path", "output", "outputs", *_FILES})
_ASSET = re.compile(r"[/\\]([0-9a-f]{2})[/\\]([0-9a-f]{62})\b")
_ASSET_IN_WORDS = re.compile(r"[^\s'\"]*" + _ASSET.pattern)


class Answer(BaseModel):
    """What all answers have in common: they are made once, and know every field."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(Answer, Generic[T]):
    """Some items of a list, newest first; `next` is the cursor of the rest, null at the end."""

    items: list[T]
    next: str | None = Field(description="Give it as `cursor` to get the next page.")


class Asset(Answer):
    """A file that was uploaded, and is kept under its content."""

    digest: str = Field(pattern=DIGEST, examples=["sha256:" + "ab" * 32])
    size: int = Field(ge=0, description="bytes")
    kind: str = Field(description="what it is: image, video or audio", examples=["image"])


class JobLinks(Answer):
    """Where more about a job is."""

    self: str
    events: str
    preview: str | None = Field(default=None, description="a picture of the render so far")
    clip: str | None = Field(default=None, description="what the job made, once it succeeded")


class Failure(BaseModel):
    """Why something failed: a kind for programs, what failed, why, and what to do about it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str = Field(examples=["insufficient_vram"])
    message: str
    cause: str = ""
    hints: list[str] = []


class Job(Answer):
    """A durable unit of work: what was asked, what will run, and how far it is."""

    id: str
    kind: str = Field(examples=["clip"])
    state: JobState
    queue: str
    priority: int = Field(description="lower numbers first")
    origin: str = Field(description="who submitted it: `api` or `cli`")
    owner: str | None = Field(description="the id of the API key that submitted it")
    request: dict[str, Any] = Field(description="what was asked, unchanged")
    plan: dict[str, Any] | None = Field(description="what exactly will run")
    plan_key: str | None = Field(description="equal keys give equal clips")
    task: str
    model: str
    backend: str
    prompt: str
    run: int = Field(description="how often it was started, taken over or released")
    deaths: int = Field(description="how many workers died while they ran it")
    worker: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    clip_id: str | None
    reused: bool = Field(description="whether the very same clip was there already")
    error: Failure | None
    progress: dict[str, Any] | None = Field(
        description="phase, step of steps, elapsed seconds, eta in seconds"
    )
    cost: str | None = Field(description=_COST)
    currency: str | None = Field(description="of the cost, such as USD")
    idempotency_key: str | None
    webhook: str | None
    remixed_from: str | None = Field(description="the job whose clip it was made after")
    parent: str | None = Field(description="the job that it is a part of, such as a film's")
    film: str | None = Field(description="the film that it is for")
    links: JobLinks

    @classmethod
    def of(cls, record: JobRecord) -> Job:
        """The answer for a job's record."""
        data = record.as_dict()
        running = record.state in ("running", "cancelling")
        links = JobLinks(
            self=f"/api/jobs/{record.id}",
            events=f"/api/events?job={record.id}",
            preview=f"/api/jobs/{record.id}/preview" if running else None,
            clip=None if record.clip_id is None else f"/api/clips/{record.clip_id}",
        )
        return cls.model_validate(without_places(data) | {"links": links})


class ClipLinks(Answer):
    """Where a clip's files are."""

    self: str
    file: str
    thumbnail: str | None
    preview: str
    record: str
    job: str | None


class Clip(Answer):
    """One finished video with what is known of it; `record` has all of it."""

    id: str
    job_id: str | None
    owner: str | None
    created_at: datetime
    prompt: str
    task: str
    model: str
    backend: str
    seed: int
    width: int = Field(description="pixels")
    height: int = Field(description="pixels")
    frames: int
    fps: float
    seconds: float = Field(description="how long it plays")
    format: str
    file_name: str = Field(description="the name that a download gets")
    asset: str | None = Field(description="the digest of the video, where the store keeps it")
    scores: dict[str, Any] = Field(description="quality from 0 to 1 by measure")
    timings: dict[str, Any] = Field(description="seconds by phase of the render")
    warnings: list[str]
    takes: list[dict[str, Any]] = Field(description="the candidates that it was chosen from")
    attempts: list[dict[str, Any]] = Field(description="what was tried for it, in order")
    cost: str | None = Field(description=_COST)
    currency: str | None = Field(description="of the cost, such as USD")
    links: ClipLinks

    @classmethod
    def of(cls, record: ClipRecord, file_name: str) -> Clip:
        """The answer for a clip's record; a download of it is called `file_name`."""
        here = f"/api/clips/{record.id}"
        links = ClipLinks(
            self=here,
            file=f"{here}/file",
            thumbnail=None if record.poster is None else f"{here}/thumbnail",
            preview=f"{here}/preview",
            record=f"{here}/record",
            job=None if record.job_id is None else f"/api/jobs/{record.job_id}",
        )
        return cls(
            id=record.id,
            job_id=record.job_id,
            owner=record.owner,
            created_at=record.created_at,
            prompt=record.prompt,
            task=record.task,
            model=record.model,
            backend=record.backend,
            seed=record.seed,
            width=record.width,
            height=record.height,
            frames=record.frames,
            fps=record.fps,
            seconds=round(record.frames / record.fps, 4),
            format=record.format,
            file_name=file_name,
            asset=record.asset,
            scores=dict(record.scores),
            timings=dict(record.timings),
            warnings=list(record.warnings),
            takes=[dict(take) for take in record.takes],
            attempts=[dict(attempt) for attempt in record.attempts],
            cost=plain_or_none(record.cost),
            currency=record.currency,
            links=links,
        )


class Model(Answer):
    """A model and whether it can run now, on this machine or elsewhere.

    `state` is `ready`; `found` when weights are here but something is missing; `missing`; or
    `unavailable`, of a model that another backend cannot run now.
    """

    id: str = Field(examples=["spark"])
    title: str
    family: str
    summary: str
    tasks: list[str]
    backend: str
    remote: bool = Field(description="whether it is made elsewhere")
    price: str = Field(description="in words", examples=["0.05 to 0.40 USD/s", "unknown", "free"])
    retirement: str | None = Field(description="the day after which nobody offers it")
    successor: str | None = Field(description="the model to use then")
    sizes: list[str] = Field(examples=[["256x160"]])
    frames: list[int] = Field(description="the fewest and the most frames of a clip")
    licence: str
    state: Literal["ready", "found", "missing", "unavailable"]
    ready: bool
    reasons: list[str]
    hints: list[str]


class Models(Answer):
    """The models that there are, and what is wrong with cards that cannot be read."""

    items: list[Model]
    problems: list[str]


class DetectedModel(Answer):
    """A model whose weights are on this machine."""

    id: str
    title: str
    tasks: list[str]
    state: Literal["ready", "found"]
    source: str = Field(description="the repository, folder or file that its weights come from")
    size: int = Field(description="bytes that its files hold on this disk")
    reasons: list[str]


class DetectedModels(Answer):
    """The models on this machine."""

    items: list[DetectedModel]


class ModelFile(Answer):
    """A file that a model needs; `state` is found, missing or broken."""

    path: str
    state: Literal["found", "missing", "broken"]
    size: int | None = Field(description="bytes, where they are known")
    reason: str


class Requirements(Answer):
    """What a model needs of this machine and has; sizes are in bytes, null where nobody knows."""

    model: str
    ready: bool
    found: list[ModelFile]
    missing: list[ModelFile]
    size: int = Field(description="what is here already")
    disk_needed: int | None = Field(description="what would be downloaded")
    disk_free: int | None
    vram_needed: int | None = Field(description="what its largest component needs")
    vram_all: int | None = Field(description="what all components need together")
    vram_free: int | None
    vram_enough: bool | None
    packages: list[str] = Field(description="Python packages that are missing")
    licence: dict[str, Any]
    pinned: dict[str, str] = Field(description="the commit in use, by repository")
    reasons: list[str] = Field(description="what keeps it from running")
    hints: list[str] = Field(description="the commands that fix it, most useful first")
    notes: list[str]


class BackendServer(Answer):
    """One of the servers of a backend; null where it does not tell."""

    url: str
    reachable: bool
    reason: str | None = Field(description="why it cannot be used")
    version: str | None
    vram_free: int | None = Field(description="bytes")
    vram_total: int | None = Field(description="bytes")
    queue: int | None = Field(description="jobs that run or wait there, anybody's")


class Backend(Answer):
    """Something that runs models, whether it can now, and if not, why and what helps."""

    name: str = Field(examples=["local"])
    set_up: bool = Field(description="whether there is a key or server to use it with")
    remote: bool = Field(description="whether it makes clips elsewhere")
    ready: bool
    verified: bool | None = Field(description="whether its key was taken; null: not asked")
    account: list[str] = Field(description="what the service said of the account, if asked")
    prices: str = Field(description="in words", examples=["0.05 to 0.40 USD/s, unknown"])
    servers: list[BackendServer]
    device: str | None = Field(description="what it renders on", examples=["cpu x8"])
    memory_free: int | None = Field(description="bytes")
    memory_total: int | None = Field(description="bytes")
    models: list[str] = Field(description="the ids of the models that it can run now")
    reasons: list[str]
    hints: list[str]


class Backends(Answer):
    """The backends of this server."""

    items: list[Backend]


class Queue(Answer):
    """A queue, named after what its workers can do, and how many jobs it has in which state."""

    name: str = Field(examples=["gpu"])
    waiting: int
    active: int
    held: int
    completed: int
    failed: int
    cancelled: int
    workers: int = Field(description="live workers that take jobs from it")
    devices: list[str] = Field(description="what they render on", examples=[["cpu x8"]])
    memory: int | None = Field(description="bytes of the largest of the devices")


class QueueTotals(Answer):
    """The jobs of all queues by state."""

    waiting: int
    active: int
    held: int
    completed: int
    failed: int
    cancelled: int


class Queues(Answer):
    """Every queue, and all of them together."""

    items: list[Queue]
    totals: QueueTotals


class Share(Answer):
    """How often something was found where it was looked for."""

    hits: int
    misses: int
    rate: float | None = Field(description="hits of all, 0 to 1; null when nothing was looked for")


class Made(Answer):
    """The clips of one task or backend."""

    clips: int
    frames: int
    seconds: float = Field(description="spent on making them")


class Savings(Answer):
    """What asking again for a clip that was there already did not cost."""

    clips: int
    seconds: float = Field(description="of rendering, reckoned at the average of a clip")


class Statistics(Answer):
    """What was made here, how fast, and how often it need not be made anew."""

    clips: int
    frames: int
    seconds: float
    average_fps: float | None = Field(description="frames made for each second spent")
    average_steps: float | None = Field(description="denoising steps of a clip")
    average_frame_rate: float | None = Field(description="frames a second at which clips play")
    tasks: dict[str, Made]
    backends: dict[str, Made]
    jobs: dict[str, int] = Field(description="how many jobs are in which state")
    embeddings: Share = Field(description="of prompts, in the cache")
    results: Share = Field(description="of whole clips, among those made before")
    cost: str = Field(description="US dollars paid to services, as an exact decimal number")
    costs: dict[str, str] = Field(description="US dollars by backend")
    saved: Savings


class CostTotal(Answer):
    """What calls to services add up to, in one currency; amounts are exact decimal numbers."""

    calls: int
    charged: str = Field(description="what was paid, such as 0.6")
    reserved: str = Field(description="what is set aside for calls that are not over")
    unknown: int = Field(description="calls of which nobody knows what they cost")
    currency: str


class CostRow(CostTotal):
    """What the calls of one day, backend, model, film or key cost."""

    name: str | None = Field(description="null for calls of none")
    id: str | None = Field(description="the id of a key; else the name again")


class BudgetUse(Answer):
    """How much of a budget is used; amounts are exact decimal numbers."""

    name: str = Field(description="day, month, or key and its name")
    limit: str
    spent: str
    reserved: str
    left: str
    currency: str
    share: float = Field(description="of the limit, spent and reserved; 1 is all of it")
    warn: bool = Field(description="whether the share has reached `budgets.warn_at`")


class Costs(Answer):
    """What services cost, and how much of the budgets is used."""

    by: Group
    since: date | None
    until: date | None
    rows: list[CostRow]
    totals: list[CostTotal] = Field(description="one for each currency")
    budgets: list[BudgetUse] = Field(description="as they are now")


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]
    version: str


class ReadyCheck(Answer):
    """One thing that the server needs."""

    name: str = Field(examples=["worker"])
    ok: bool
    detail: str


class Readiness(Answer):
    """Whether jobs that are submitted now will run, and what is in the way if not."""

    ready: bool
    checks: list[ReadyCheck]


def without_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON of a record, an event or an error without places on the server's disk.

    Where a request or a plan names a file, a file of the store becomes its digest, which may be
    sent in a new request, and any other its bare name. A file of the store is told by its digest
    also where a sentence names it.
    """
    return {key: _shown(value) if key in _PLACES else _inside(value) for key, value in data.items()}


def _inside(value: Any) -> Any:
    if isinstance(value, str):
        # Looked for first: a long text without spaces would be searched from each of its letters.
        found = _ASSET.search(value)
        return _ASSET_IN_WORDS.sub(r"sha256:\1\2", value) if found else value
    if isinstance(value, Mapping):
        return without_places(value)
    return [_inside(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> Any:
    if isinstance(value, str | PurePath):
        found = _ASSET.search(str(value))
        return f"sha256:{found[1]}{found[2]}" if found else PurePath(str(value)).name
    if isinstance(value, Mapping):
        return without_places(value)
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value
