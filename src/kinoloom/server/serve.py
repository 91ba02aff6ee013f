"""How does the server run: where does it listen, what does it log, and how does it end?"""

from __future__ import annotations

import errno
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import uvicorn

from kinoloom.config import Settings
from kinoloom.errors import Conflict, InvalidRequest, KinoloomError, NotAuthenticated, Problem
from kinoloom.jobs.service import JobService
from kinoloom.server.app import create_app
from kinoloom.store.store import Store

HOST, PORT = "127.0.0.1", 8000
# How long requests and event streams may go on once the server was asked to end.
_GRACE_SECONDS = 5
# A message that a client sends over a websocket is a few words of JSON.
_MAX_WEBSOCKET_MESSAGE = 64 * 1024
_HEADROOM = 128

StartWorker = Callable[[], AbstractContextManager[object]]


def serve(
    settings: Settings,
    *,
    host: str = HOST,
    port: int = PORT,
    require_key: bool = False,
    start_worker: StartWorker | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run the server until SIGINT or SIGTERM; then requests get five seconds to finish.

    A host that other machines reach needs API keys, as does any with `require_key`. `port` 0 takes
    a free one. `start_worker` gives the worker that runs beside it, ended after the server.
    `on_ready` is told the address once it answers.

    Raises NotAuthenticated when keys are needed and there is none, InvalidRequest for a host that
    cannot be listened on, Conflict for a port that is taken, and as `Store.open` does.
    """
    require_key = require_key or not is_loopback(host)
    _log_to_stderr()
    with Store.of(settings) as store:
        if require_key and not store.keys.any():
            raise NotAuthenticated(
                f"A server on {host} needs an API key, and there is none.",
                cause="Others could use it otherwise.",
                hints=["kinoloom keys create NAME", "Or listen on 127.0.0.1, which needs none."],
            )
        with listening(host, port) as listener:
            service = JobService(settings, store)
            try:
                with (start_worker or nullcontext)():
                    app = create_app(settings, store, service, require_key=require_key)
                    _Server(configuration(app), on_ready).run(sockets=[listener])
            finally:
                service.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`.

    Raises InvalidRequest when the name has no address.
    """
    found = _addresses(host, 0)
    return all(
        ipaddress.ip_address(address[0].partition("%")[0]).is_loopback for *_, address in found
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that takes connections for `host` and `port`.

    Raises InvalidRequest for a host that is not this machine's, Conflict for a port that another
    program has or that only root may have.
    """
    if not 0 <= port < 65_536:
        raise InvalidRequest([Problem("port", port, "0 to 65535", PORT)])
    family, *_, address = _addresses(host, port)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        try:
            if sys.platform != "win32":  # there it would share the port with another program
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_HEADROOM)
        except OSError as error:
            raise _unusable(host, port, error) from error
        yield listener
    finally:
        listener.close()


def url_of(listener: socket.socket) -> str:
    """The address of a server that listens there, as a browser on this machine takes it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, except that SIGTERM and SIGINT are an end like any other: the worker is ended and
    the store closed before the process is gone."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None and sockets:
            self._on_ready(url_of(sockets[0]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Else those who listen to events would be waited for.
        self.config.app.state.hub.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def configuration(app: object) -> uvicorn.Config:
    """How uvicorn runs the application.

    It logs no requests, since it would write their queries down: `SafeAnswers` does. Headers that a
    proxy adds are not believed, since anyone may send them.
    """
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws_max_size=_MAX_WEBSOCKET_MESSAGE,
        # The messages are short, and compressing keeps some 300 kB for each client.
        ws_per_message_deflate=False,
        ws_ping_interval=30,
        ws_ping_timeout=30,
    )


def _log_to_stderr() -> None:
    """Kinoloom's lines, and of the libraries what is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("kinoloom", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            logger.addHandler(handler)
            logger.propagate = False


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError, OverflowError) as error:
        raise InvalidRequest(
            [Problem("host", host, "a name or address of this machine", HOST)],
            message="The server cannot listen there.",
        ) from error
    return found  # type: ignore[return-value]


def _unusable(host: str, port: int, error: OSError) -> KinoloomError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"Port {port} of {host} is in use.",
            cause="Another program, perhaps another `kinoloom serve`, listens there.",
            hints=[f"kinoloom serve --port {port + 1}", "Or end the other program."],
        )
    if error.errno == errno.EACCES:
        return Conflict(
            f"Port {port} of {host} may not be used.",
            cause="The system keeps the ports below 1024 to itself.",
            hints=[f"kinoloom serve --port {PORT}"],
        )
    return InvalidRequest(
        [Problem("host", host, "a name or address of this machine", HOST)],
        message=f"The server cannot listen there: {error.strerror or error}.",
    )
