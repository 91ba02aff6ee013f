"""How is a clip made by the ComfyUI servers of the user?

An order becomes a graph of nodes for the least busy server that has all it needs. How far it is, is
heard over a websocket while that works and asked for where it does not; whether and how it ended is
always asked for. All that is needed later is in the ticket, so any process can go on with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kinoloom.backends.base import Fetched, Order, Readiness, RemoteStatus, Ticket
from kinoloom.backends.remote.retries import read_again
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings
from kinoloom.errors import (
    KinoloomError,
    MissingPackage,
    ModelNotFound,
    NetworkFailed,
    NotFound,
    WorkerUnavailable,
)

if TYPE_CHECKING:  # what speaks HTTP is imported when there is somebody to speak to
    from kinoloom.backends.comfyui.events import Watch
    from kinoloom.backends.comfyui.pool import Able, Pool, ServerState
    from kinoloom.backends.comfyui.server import Look, Server
    from kinoloom.backends.comfyui.socket import Listener
    from kinoloom.catalog.loader import Catalog

_FOLDER = "kinoloom"
"""The folder below a server's ``input`` where pictures are sent to."""
_SOCKET_SECONDS = 2.0
_STOP_LOOKS = 10
_TRIES = 3

T = TypeVar("T")


class ComfyUIBackend:
    """The models of ComfyUI servers: ours by graphs that are built here, the user's by workflows.

    `sleep` is how it waits between two looks.
    """

    name: ClassVar[str] = "comfyui"
    remote: ClassVar[bool] = True
    poll_seconds = 1.0

    def __init__(self, settings: Settings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings.backends.comfyui
        self._sleep = sleep
        self._lock = threading.Lock()
        self._made: Pool | None = None
        self._listeners: dict[tuple[str, str], Listener] = {}
        self._client_id = f"kinoloom-{uuid.uuid4().hex}"

    # --- what it can do -----------------------------------------------------------------------

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """The user's own workflows."""
        from kinoloom.backends.comfyui import workflow

        folder = self._settings.workflows
        return workflow.cards(folder) if folder is not None else ()

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether a server answers that has every node and file; if not, what is missing where."""
        if lacking := _missing_packages():
            return Readiness(False, (lacking.message,), lacking.hints)
        if not self._settings.servers:
            nobody = _no_server()
            return Readiness(False, (nobody.message,), nobody.hints)
        from kinoloom.backends.comfyui.pool import reasons, shortage

        pool = self._pool()
        lacks = pool.lacks(card)
        able = [url for url, what in lacks.items() if not what]
        if not able:
            return Readiness(False, reasons(lacks), _steps(lacks))
        needed = _memory_needed(card)
        if needed is None:
            return Readiness(True)
        short = [shortage(s, needed) for s in pool.states() if s.url in able]
        return Readiness(True, () if "" in short else tuple(short))

    def servers(self) -> list[ServerState]:
        """Every server of the settings as it is now, for `kinoloom backends`."""
        return self._pool().states() if self._settings.servers else []

    # --- handing in ---------------------------------------------------------------------------

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Hand the order to the least busy server that can do it.

        A server that takes no connection, fails before it is handed the order, or turns out to
        lack something is passed over. Raises Uncertain when a server may have accepted it.
        """
        if not self._settings.servers:
            raise _no_server()
        pool = self._pool()
        left = pool.able(card, order.take.task)
        while True:
            with pool.least_busy(left) as able:
                try:
                    return self._hand_in(able, order, card)
                except (NetworkFailed, WorkerUnavailable, ModelNotFound):
                    pool.forget(able.server.url)
                    left.remove(able)
                    if not left:
                        raise

    def _hand_in(self, able: Able, order: Order, card: ModelCard) -> Ticket:
        from kinoloom.backends.comfyui import failures, graphs
        from kinoloom.backends.comfyui.events import samplers
        from kinoloom.backends.comfyui.object_info import chosen_files

        server = able.server
        uploads = {name: _upload(server, file) for name, file in order.inputs.items()}
        graph = graphs.build(order, card, able.info, uploads)
        planned = samplers(graph)
        listener = self._listener(server.url, self._client_id)
        listener.follow(order.key, planned)
        listener.ready(_SOCKET_SECONDS)  # without it the first events are missed, no more
        prompt_id = order.key
        try:
            answer = server.prompt(order.key, self._client_id, graph)
            if answer.status != 200:
                raise failures.of_prompt(answer, server.url)
            prompt_id = str(answer.data["prompt_id"])
            dropped = failures.of_dropped(answer.data.get("node_errors"), graph, server.url)
            if dropped is not None:  # it was accepted, but no video would come of it
                with contextlib.suppress(KinoloomError):
                    server.cancel(prompt_id)
                raise dropped
        except KinoloomError:
            listener.forget(order.key)
            raise
        if prompt_id != order.key:
            listener.forget(order.key)
            listener.follow(prompt_id, planned)
        return _ticket(
            server.url, prompt_id, self._client_id, planned, chosen_files(card, able.info)
        )

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        """Look for an order on every server.

        Raises NetworkFailed while one of them cannot be asked and no other has the order.
        """
        from kinoloom.backends.comfyui.events import samplers

        silent: list[str] = []
        for server in self._pool().named():
            try:
                found = self._again(partial(server.find, order.key))
            except KinoloomError as error:
                silent.append(f"{server.url}: {error.message}")
                continue
            if found is not None:
                planned = samplers(found.graph)
                return _ticket(server.url, found.prompt_id, found.client_id, planned, {})
        if silent:
            raise NetworkFailed(
                "Nobody knows yet whether a ComfyUI server has the job: not all of them answer.",
                cause="\n".join(silent),
                hints=["Start the server, or take it out of `backends.comfyui.servers`."],
            )
        return None

    # --- following ----------------------------------------------------------------------------

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far a job is: from what was heard of it lately, else from the server.

        A job that the server does not know any more has failed: it was restarted, or somebody took
        the job out of its queue.
        """
        server, listener = self._server(ticket), self._listener_of(ticket)
        watch = listener.follow(ticket.remote_id, _planned(ticket))
        if listener.fresh(watch):
            return watch.waits or _heard(watch)
        status = self._status(self._look(server, ticket), watch, ticket, card)
        if status.state in ("queued", "running"):
            listener.asked(watch, status if status.state == "queued" else None)
        return status

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Take a job out of the queue, or stop it; a running one stops at its next step.

        What is returned is `running` when it has not stopped after a few looks.
        """
        server, listener = self._server(ticket), self._listener_of(ticket)
        watch = listener.follow(ticket.remote_id, _planned(ticket))
        stopped = self._again(lambda: server.cancel(ticket.remote_id))
        look = self._look(server, ticket)
        for _ in range(_STOP_LOOKS if stopped else 0):
            if look.state not in ("queued", "running"):
                break
            self._sleep(self.poll_seconds / 2)
            look = self._look(server, ticket)
        listener.forget(ticket.remote_id)
        if stopped and look.state == "lost":  # it was taken out of the queue
            return RemoteStatus("cancelled", charged=_nothing(card))
        return self._status(look, watch, ticket, card)

    def _status(self, look: Look, watch: Watch, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        from kinoloom.backends.comfyui import failures, outputs

        if look.state == "queued":
            before = f"{look.before} before it" if look.before else "next"
            return RemoteStatus("queued", detail=f"waits at {ticket.endpoint}, {before}")
        if look.state == "running":
            return _heard(watch)
        self._listener_of(ticket).forget(ticket.remote_id)
        charged = _nothing(card)
        if look.state == "cancelled":
            return RemoteStatus("cancelled", detail="stopped on the server", charged=charged)
        error: KinoloomError | None = None
        if look.state == "lost":
            error = _lost(ticket)
        elif look.state == "failed":
            error = failures.of_execution(look.error)
        else:
            try:
                outputs.video(look.outputs, _output_node(card))
            except KinoloomError as found:
                error = found
        if error is not None:
            return RemoteStatus("failed", error=error, charged=charged)
        step = sum(_planned(ticket).values())
        return RemoteStatus("succeeded", progress=1.0, step=step, steps=step, charged=charged)

    # --- the result ---------------------------------------------------------------------------

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Download the video of a finished job. Raises NotFound when the server forgot the job."""
        from kinoloom.backends.comfyui import outputs
        from kinoloom.backends.remote.download import download

        server = self._server(ticket)
        look = self._look(server, ticket)
        if look.state != "succeeded":
            raise NotFound(
                f"{ticket.endpoint} has no finished job {ticket.remote_id}.",
                cause="It was restarted since, or its history was cleared."
                if look.state == "lost"
                else f"The job is {look.state} there.",
                hints=["The file may still lie in ComfyUI's folder `output`."],
            )
        chosen, count = outputs.video(look.outputs, _output_node(card))
        suffix = chosen.suffix if chosen.rank == 1 or chosen.suffix in outputs.VIDEOS else ".mp4"
        target = folder / f"{ticket.remote_id}{suffix}"
        download(server.view_url(chosen), target, trusted=True)
        notes = (
            (f"The workflow made {count} videos; this is the last one, of node {chosen.node}.",)
            if count > 1
            else ()
        )
        return Fetched(target, self._versions(server, ticket), notes)

    def _versions(self, server: Server, ticket: Ticket) -> dict[str, str]:
        try:
            stats = server.stats()
            told = {"comfyui": stats.version, "torch": stats.torch, "device": stats.device}
        except KinoloomError:  # the video is here; what made it is a courtesy
            told = {}
        files = ticket.data.get("files")
        return {k: v for k, v in told.items() if v} | (files if isinstance(files, dict) else {})

    # --- parts --------------------------------------------------------------------------------

    def _look(self, server: Server, ticket: Ticket) -> Look:
        return self._again(lambda: server.look(ticket.remote_id))

    def _again(self, read: Callable[[], T]) -> T:
        return read_again(read, attempts=_TRIES, sleep=self._sleep)

    def _server(self, ticket: Ticket) -> Server:
        return self._pool().server(ticket.endpoint)

    def _pool(self) -> Pool:
        if lacking := _missing_packages():
            raise lacking
        from kinoloom.backends.comfyui.pool import Pool

        with self._lock:
            if self._made is None:
                self._made = Pool(self._settings.servers)
            return self._made

    def _listener_of(self, ticket: Ticket) -> Listener:
        # A prompt's events go to the client that handed it in, which may be a process before us.
        client_id = ticket.data.get("client_id")
        return self._listener(ticket.endpoint, str(client_id or self._client_id))

    def _listener(self, url: str, client_id: str) -> Listener:
        from kinoloom.backends.comfyui.socket import Listener

        with self._lock:
            for key, other in list(self._listeners.items()):
                if key[1] not in (client_id, self._client_id) and other.idle:
                    del self._listeners[key]
            return self._listeners.setdefault((url, client_id), Listener(url, client_id))


def _upload(server: Server, file: Path) -> str:
    """Send a picture under its content's name: the same picture lies there once."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return server.upload(file, f"{digest[:32]}.png", _FOLDER)


def _ticket(
    url: str, prompt_id: str, client_id: str, planned: Mapping[str, int], files: Mapping[str, str]
) -> Ticket:
    data: dict[str, Any] = {"client_id": client_id, "samplers": dict(planned)}
    return Ticket(prompt_id, url, data | ({"files": dict(files)} if files else {}))


def _planned(ticket: Ticket) -> dict[str, int]:
    found = ticket.data.get("samplers")
    return dict(found) if isinstance(found, Mapping) else {}


def _heard(watch: Watch) -> RemoteStatus:
    step, steps = watch.steps
    return RemoteStatus(
        "running",
        progress=step / steps if steps else None,
        step=step,
        steps=steps,
        detail=f"node {watch.node}" if watch.node else "",
        preview=watch.preview,
    )


def _nothing(card: ModelCard) -> Decimal | None:
    """What a job costs on a server of one's own; a workflow may call paid services."""
    return Decimal(0) if card.price == "free" else None


def _output_node(card: ModelCard) -> str | None:
    """The node whose file is the video, where a user's workflow says it."""
    node = card.remote.settings.get("output") if card.remote is not None else None
    return None if node is None else str(node)


def _memory_needed(card: ModelCard) -> int | None:
    """The video memory that a model wants, in bytes, where its card says so."""
    gib = card.remote.settings.get("vram_gib") if card.remote is not None else None
    return int(gib * 2**30) if isinstance(gib, int | float) else None


def _steps(lacks: Mapping[str, Any]) -> tuple[str, ...]:
    from kinoloom.backends.comfyui.failures import lacking

    there = {url: what for url, what in lacks.items() if not isinstance(what, str)}
    steps = lacking(there).hints if there else ()
    away = [url for url, what in lacks.items() if isinstance(what, str)]
    return (*steps, *(f"Start {url}, or correct `backends.comfyui.servers`." for url in away))


def _lost(ticket: Ticket) -> WorkerUnavailable:
    return WorkerUnavailable(
        f"The ComfyUI server {ticket.endpoint} does not know the job any more.",
        cause="It was restarted, or somebody took the job out of its queue.",
        hints=["Try again; nothing was paid."],
    )


def _no_server() -> WorkerUnavailable:
    return WorkerUnavailable(
        "No ComfyUI server is set.",
        hints=["Set backends.comfyui.servers in kinoloom.yaml, as in [http://127.0.0.1:8188]."],
    )


def _missing_packages() -> MissingPackage | None:
    absent = [name for name in ("httpx", "websockets") if find_spec(name) is None]
    if not absent:
        return None
    return MissingPackage(
        f"The backend comfyui needs {' and '.join(absent)}.",
        hints=["pip install 'kinoloom[comfyui]'"],
    )
