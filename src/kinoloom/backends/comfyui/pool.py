"""Which of several ComfyUI servers can take a job now, and which of them is the least busy?

What servers say is kept for a few seconds, so that planning over many models asks each of them
once; how busy they are is asked anew when a job is handed in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kinoloom.backends.comfyui.failures import describe, lacking
from kinoloom.backends.comfyui.object_info import Missing, ObjectInfo, missing
from kinoloom.backends.comfyui.server import NotConnected, Server, Stats
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import KinoloomError, NetworkFailed
from kinoloom.request import Task

KEEP_SECONDS = 5.0
NODES_SECONDS = 60.0
"""How long a server's list of nodes and files is kept while it has all that is looked for."""
_AT_ONCE = 8


@dataclass(frozen=True)
class ServerState:
    """A server as it was a moment ago, for people and for choosing.

    `vram_total` and `vram_free` in bytes, None where it does not say them or has no GPU; `queue` is
    how many prompts run or wait; `reason` says why it is not reachable.
    """

    url: str
    version: str = ""
    torch: str = ""
    device: str = ""
    vram_total: int | None = None
    vram_free: int | None = None
    queue: int = 0
    reachable: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Able:
    """A server that has all that a model needs."""

    server: Server
    state: ServerState
    info: ObjectInfo


@dataclass
class _Known:
    state: ServerState
    info: ObjectInfo | None
    at: float
    info_at: float


class Pool:
    """The servers that the user named. Threads may share it."""

    def __init__(self, urls: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._servers = {url: Server(url) for url in dict.fromkeys(urls)}
        self._order = tuple(self._servers)
        self._asking = {url: threading.Lock() for url in self._servers}
        self._known: dict[str, _Known] = {}
        self._handing: Counter[str] = Counter()

    def server(self, url: str) -> Server:
        """The server of a ticket, also when the settings do not name it any more."""
        with self._lock:
            if url not in self._servers:
                self._servers[url] = Server(url)
            return self._servers[url]

    def named(self) -> tuple[Server, ...]:
        """The servers that the settings name."""
        return tuple(self._servers[url] for url in self._order)

    def states(self) -> list[ServerState]:
        """Every server, in the order of the settings."""
        return [known.state for known in self._look()]

    def able(self, card: ModelCard, task: Task | None = None) -> list[Able]:
        """The servers that can take a job of a model.

        Raises NetworkFailed when none answers, ModelNotFound when none has all that it needs.
        """
        found = [
            Able(self._servers[known.state.url], known.state, known.info)
            for known in self._look(card, task, fresh=True)
            if known.info is not None and not missing(card, known.info, task)
        ]
        if not found:
            raise self._none(card, task)
        return found

    def lacks(self, card: ModelCard) -> Mapping[str, tuple[Missing, ...] | str]:
        """By server what of a model is missing there, or why it cannot be reached."""
        return {
            known.state.url: (
                known.state.reason if known.info is None else missing(card, known.info)
            )
            for known in self._look(card)
        }

    @contextlib.contextmanager
    def least_busy(self, able: Sequence[Able]) -> Iterator[Able]:
        """The one of these servers that is to get a job, while it is handed over.

        It is counted as busier from then on, so that jobs at the same time are shared out.
        """
        with self._lock:
            chosen = min(
                able,
                key=lambda a: (
                    a.state.queue + self._handing[a.state.url],
                    -(a.state.vram_free or 0),
                ),
            )
            self._handing[chosen.state.url] += 1
        try:
            yield chosen
        finally:
            with self._lock:
                self._handing[chosen.state.url] -= 1

    def forget(self, url: str) -> None:
        """What a server said is not true any more."""
        with self._lock:
            self._known.pop(url, None)

    def _none(self, card: ModelCard, task: Task | None) -> KinoloomError:
        told = self._look(card, task)
        reached = {k.state.url: missing(card, k.info, task) for k in told if k.info is not None}
        if reached:
            return lacking(reached)
        return NetworkFailed(
            "No ComfyUI server answers."
            if len(told) > 1
            else "The ComfyUI server does not answer.",
            cause="\n".join(f"{k.state.url}: {k.state.reason}" for k in told),
            hints=["Start it, or correct `backends.comfyui.servers` in kinoloom.yaml."],
        )

    def _look(
        self, card: ModelCard | None = None, task: Task | None = None, *, fresh: bool = False
    ) -> list[_Known]:
        def one(url: str) -> _Known:
            return self._one(url, card, task, fresh)

        if len(self._order) < 2:
            return [one(url) for url in self._order]
        with ThreadPoolExecutor(min(_AT_ONCE, len(self._order))) as threads:
            return list(threads.map(one, self._order))

    def _one(self, url: str, card: ModelCard | None, task: Task | None, fresh: bool) -> _Known:
        """What is known of a server; whoever asks at the same time waits for the one answer."""
        asked = self._clock()
        with self._asking[url]:
            with self._lock:
                known = self._known.get(url)
            now = self._clock()
            # Whoever wants it fresh takes what somebody else has asked for in the meantime.
            if known is not None and known.at > (asked if fresh else now - KEEP_SECONDS):
                return known
            known = self._ask(self._servers[url], known, card, task)
            with self._lock:
                self._known[url] = known
            return known

    def _ask(
        self, server: Server, before: _Known | None, card: ModelCard | None, task: Task | None
    ) -> _Known:
        try:
            stats, queue = server.stats(), server.waiting()
            now = self._clock()
            info = before.info if before else None
            info_at = before.info_at if before else now
            old = before is None or before.state.version != stats.version
            lacks = card is not None and info is not None and bool(missing(card, info, task))
            # A file that was just put there is what somebody waits for.
            if info is None or old or lacks or now - info_at > NODES_SECONDS:
                info, info_at = ObjectInfo.of(server.object_info()), now
        except KinoloomError as error:
            said = "It does not answer." if isinstance(error, NotConnected) else error.message
            reason = " ".join(x for x in (said, error.cause) if x)
            return _Known(ServerState(server.url, reason=reason), None, self._clock(), 0.0)
        return _Known(_state(server.url, stats, queue), info, self._clock(), info_at)


def shortage(state: ServerState, needed: int) -> str:
    """What to say of a server whose memory is smaller than a model needs; empty if it is not."""
    for have, word in ((state.vram_total, "has"), (state.vram_free, "has free now")):
        if have is not None and have < needed:
            return (
                f"{state.url} {word} {have / 2**30:.1f} GiB of video memory, and the model wants"
                f" about {needed / 2**30:.0f} GiB: it will be slow, or run out of it."
            )
    return ""


def reasons(lacks: Mapping[str, tuple[Missing, ...] | str]) -> tuple[str, ...]:
    """Why no server can run a model, a line for each thing."""
    return tuple(
        line
        for url, what in lacks.items()
        for line in (
            [f"{url}: {what}"] if isinstance(what, str) else [f"{url} {describe(m)}" for m in what]
        )
    )


def _state(url: str, stats: Stats, queue: int) -> ServerState:
    return ServerState(
        url=url,
        version=stats.version,
        torch=stats.torch,
        device=stats.device,
        vram_total=stats.vram_total,
        vram_free=stats.vram_free,
        queue=queue,
        reachable=True,
    )
