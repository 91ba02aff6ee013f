"""What the backend does without any server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fakes.comfyui_cards import two_experts
from fakes.orders import order_of
from kinoloom.backends import registry
from kinoloom.backends.base import Ticket
from kinoloom.backends.comfyui import backend as module
from kinoloom.backends.comfyui.backend import ComfyUIBackend
from kinoloom.backends.comfyui.server import Look, LookState, Server
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, MissingPackage, NetworkFailed

CARD = two_experts()
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, backends={"comfyui": {"servers": [NOWHERE]}})  # type: ignore[arg-type]


@pytest.fixture
def comfy(settings: Settings) -> ComfyUIBackend:
    return ComfyUIBackend(settings, sleep=lambda _: None)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the server says one look after the other."""

    def say(*found: Look | KinoloomError) -> None:
        left = iter(found)

        def look(server: Server, prompt_id: str) -> Look:
            one = next(left)
            if isinstance(one, KinoloomError):
                raise one
            return one

        monkeypatch.setattr(Server, "look", look)

    return say


def test_the_registry_finds_it(settings: Settings) -> None:
    assert isinstance(registry.backend("comfyui", settings), ComfyUIBackend)
    assert ComfyUIBackend.remote


def test_it_is_imported_without_what_speaks_http() -> None:
    code = (
        "import sys; import kinoloom.backends.comfyui.backend;"
        "print(sorted({'httpx', 'websockets', 'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_said(comfy: ComfyUIBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "websockets" else name)
    told = comfy.readiness(CARD)
    assert not told.ready
    assert "websockets" in told.reasons[0]
    assert told.hints == ("pip install 'kinoloom[comfyui]'",)
    with pytest.raises(MissingPackage):
        comfy.submit(order_of(CARD), CARD)


def test_the_users_workflows_are_its_cards(tmp_path: Path, comfy: ComfyUIBackend) -> None:
    known = Catalog.load(tmp_path)
    assert list(comfy.cards(known)) == []
    folder = tmp_path / "workflows"
    folder.mkdir()
    own = Settings(home=tmp_path, backends={"comfyui": {"workflows": folder}})  # type: ignore[arg-type]
    assert list(ComfyUIBackend(own).cards(known)) == []


def test_a_server_that_is_not_there_is_said(comfy: ComfyUIBackend) -> None:
    told = comfy.readiness(CARD)
    assert not told.ready
    assert NOWHERE in told.reasons[0]
    assert told.hints == (f"Start {NOWHERE}, or correct `backends.comfyui.servers`.",)
    assert not comfy.servers()[0].reachable
    with pytest.raises(NetworkFailed):
        comfy.submit(order_of(CARD), CARD)
    with pytest.raises(NetworkFailed):
        comfy.find(order_of(CARD), CARD)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("queued", "queued"),
        ("running", "running"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("lost", "failed"),
    ],
)
def test_what_a_look_means(
    comfy: ComfyUIBackend, looks: Callable[..., None], state: LookState, said: str
) -> None:
    looks(Look(state, "p"))
    status = comfy.poll(Ticket("p", NOWHERE), CARD)
    assert status.state == said
    assert (status.error is not None) is (said == "failed")
    done = said in ("failed", "cancelled")
    assert status.charged == (Decimal(0) if done else None)


def test_what_a_workflow_with_paid_nodes_costs_is_not_known(
    comfy: ComfyUIBackend, looks: Callable[..., None]
) -> None:
    looks(Look("lost", "p"))
    unknown = two_experts(price=None)
    assert comfy.poll(Ticket("p", NOWHERE), unknown).charged is None


def test_a_look_that_failed_is_made_again(
    comfy: ComfyUIBackend, looks: Callable[..., None]
) -> None:
    looks(NetworkFailed("broke off"), NetworkFailed("again"), Look("running", "p"))
    assert comfy.poll(Ticket("p", NOWHERE), CARD).state == "running"
    looks(*[NetworkFailed("broke off")] * 3)
    with pytest.raises(NetworkFailed):
        comfy.poll(Ticket("p", NOWHERE), CARD)


@pytest.mark.parametrize(
    "data",
    [{}, {"samplers": None}, {"client_id": 7}, {"samplers": {"3": 4}, "client_id": "c"}],
)
def test_a_ticket_of_another_version_is_understood(
    comfy: ComfyUIBackend, looks: Callable[..., None], data: dict[str, object]
) -> None:
    looks(Look("running", "p"))
    status = comfy.poll(Ticket("p", NOWHERE, data), CARD)
    assert status.steps == (4 if data.get("samplers") else 0)


def test_a_cancel_waits_for_the_next_step(
    comfy: ComfyUIBackend, looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "cancel", lambda server, prompt_id: True)
    looks(Look("running", "p"), Look("running", "p"), Look("cancelled", "p"))
    assert comfy.cancel(Ticket("p", NOWHERE), CARD).state == "cancelled"
    looks(*[Look("running", "p")] * 30)
    assert comfy.cancel(Ticket("p", NOWHERE), CARD).state == "running"
    looks(Look("lost", "p"))
    assert comfy.cancel(Ticket("p", NOWHERE), CARD).state == "cancelled"
