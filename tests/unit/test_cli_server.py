from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from kinoloom import cli
from kinoloom.config import Settings, load_settings
from kinoloom.jobs import running
from kinoloom.jobs.locks import lock_file
from kinoloom.jobs.supervisor import WorkerSupervisor
from kinoloom.store.held import held_store
from stand_in import StandIn

Kinoloom = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KINOLOOM_DEVICE", "cpu")
    return tmp_path / "home"


@pytest.fixture
def kinoloom() -> Kinoloom:
    """Run a command; an exception that is no exit fails the test."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    """What the server was started with; it ends at once."""
    found: list[tuple[Settings, dict[str, Any]]] = []

    def serve(settings: Settings, **options: Any) -> None:
        found.append((settings, options))
        options["on_ready"]("http://127.0.0.1:8000")

    monkeypatch.setattr("kinoloom.server.serve.serve", serve)
    return found


def test_a_server_listens_here_alone_and_has_a_worker(
    kinoloom: Kinoloom, served: list[tuple[Settings, dict[str, Any]]], home: Path
) -> None:
    result = kinoloom("serve")
    assert result.exit_code == 0
    assert result.stdout == "Kinoloom is at http://127.0.0.1:8000 (Ctrl-C ends it)\n"
    ((settings, options),) = served
    assert settings.home == home
    assert (options["host"], options["port"], options["require_key"]) == ("127.0.0.1", 8000, False)
    assert isinstance(options["start_worker"](), WorkerSupervisor)


def test_a_server_as_it_is_asked_for(
    kinoloom: Kinoloom, served: list[tuple[Settings, dict[str, Any]]]
) -> None:
    flags = ("--host", "::1", "--port", "0", "--require-key", "--no-worker")
    kinoloom("serve", *flags, "--database-url", "postgresql://u:s3cret@db/k")
    ((settings, options),) = served
    assert (options["host"], options["port"], options["require_key"]) == ("::1", 0, True)
    assert options["start_worker"] is None
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://u:s3cret@db/k"


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_wrong_database_is_wrong_usage(kinoloom: Kinoloom, command: str) -> None:
    result = kinoloom(command, "--database-url", "mysql://user:s3cret@db/k")
    assert result.exit_code == 2
    assert "--database-url = " in result.stderr
    assert "s3cret" not in result.output


def test_a_wrong_port_is_wrong_usage(kinoloom: Kinoloom) -> None:
    assert kinoloom("serve", "--port", "65536").exit_code == 2
    assert kinoloom("serve", "--port", "http").exit_code == 2


def test_a_server_that_is_interrupted(kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kinoloom.server.serve.serve", interrupted)
    result = kinoloom("serve")
    assert result.exit_code == 130
    assert "The server was ended." in result.stderr


def test_without_the_servers_packages_it_is_told_what_to_install(
    kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("kinoloom.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = kinoloom("serve")
    assert result.exit_code == 1
    assert "error (missing_package): " in result.stderr
    assert "uvicorn" in result.stderr
    assert "pip install 'kinoloom[server]'" in result.stderr


# --- worker -------------------------------------------------------------------------------------


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinoloom.jobs.worker.RenderProcess", lambda _settings, **_: StandIn())


@pytest.mark.parametrize(
    ("flags", "name", "queues"),
    [
        ((), socket.gethostname(), "cpu, api, film"),
        (("--name", "w", "--queue", "gpu-24gb", "--queue", "api"), "w", "gpu-24gb, api, film"),
    ],
)
@pytest.mark.usefixtures("child")
def test_a_worker_serves_its_queues_until_it_is_interrupted(
    kinoloom: Kinoloom,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    name: str,
    queues: str,
) -> None:
    class Ends:
        """What the main thread waits for."""

        def wait(self) -> None:
            (there,) = held_store(load_settings()).workers.live()
            assert (there.id, ", ".join(queue.name for queue in there.queues)) == (name, queues)
            raise KeyboardInterrupt

    monkeypatch.setattr(running, "threading", SimpleNamespace(Event=Ends))
    result = kinoloom("worker", *flags)
    assert result.exit_code == 130
    assert "The worker was ended." in result.stderr
    assert held_store(load_settings()).workers.live() == []


@pytest.mark.usefixtures("child")
def test_a_second_worker_of_one_name_is_refused(kinoloom: Kinoloom) -> None:
    with FileLock(lock_file(load_settings(), "w")):
        result = kinoloom("worker", "--name", "w")
    assert result.exit_code == 1
    assert "error (conflict): A worker named w is running already" in result.stderr
    assert "--name" in result.stderr
