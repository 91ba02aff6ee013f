"""What is heard of a job while the socket works and while it does not, and how jobs fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fakes.clip import small_mp4
from fakes.comfyui import JPEG, FakeComfyUI
from fakes.comfyui_cards import HIGH, two_experts
from fakes.comfyui_validation import without
from fakes.following import DEADLINE, ended, until
from fakes.orders import order_of
from kinoloom.backends.base import Ticket
from kinoloom.backends.comfyui.backend import ComfyUIBackend
from kinoloom.errors import (
    ErrorKind,
    InvalidRequest,
    ModelNotFound,
    NetworkFailed,
    WorkerUnavailable,
)

CARD = two_experts()
FIRST, SECOND = 11, 9
"""Of its 20 steps; see `wan.steps_of_first`."""
Make = Callable[..., ComfyUIBackend]


def test_while_the_socket_tells_nobody_asks(new: FakeComfyUI, make: Make) -> None:
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    prompt = new.begin()
    new.step(prompt.samplers[0], 1, FIRST)
    until(lambda: backend.poll(ticket, CARD), lambda s: s.step == 1)
    asked = len(new.asked)
    for _ in range(50):
        assert backend.poll(ticket, CARD).step == 1
    assert len(new.asked) == asked


def test_a_waiting_job_is_not_asked_about_all_the_time(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    first, second = (backend.submit(order_of(CARD), CARD) for _ in range(2))
    told = backend.poll(second, CARD)
    asked = len(fake.asked)
    for _ in range(50):
        assert backend.poll(second, CARD) == told
    assert len(fake.asked) == asked
    fake.begin()
    fake.finish()
    until(lambda: backend.poll(first, CARD), ended)
    fake.begin()  # which it hears
    assert until(lambda: backend.poll(second, CARD), lambda s: s.state == "running")


def test_a_finish_is_seen_after_the_socket_dropped(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    prompt = fake.begin()
    fake.step(prompt.samplers[0], 1, FIRST)
    until(lambda: backend.poll(ticket, CARD), lambda s: s.step == 1)
    fake.sockets_refused = True
    fake.drop_sockets()
    fake.step(prompt.samplers[0], 2, FIRST)
    assert backend.poll(ticket, CARD).state == "running"
    fake.finish()
    assert until(lambda: backend.poll(ticket, CARD), ended).state == "succeeded"


def test_progress_goes_on_after_a_reconnect(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    prompt = fake.begin()
    fake.step(prompt.samplers[0], FIRST, FIRST)
    until(lambda: backend.poll(ticket, CARD), lambda s: s.step == FIRST)
    fake.drop_sockets()
    until(lambda: backend.poll(ticket, CARD), lambda _: fake.connections == 2)
    fake.step(prompt.samplers[1], 5, SECOND)
    status = until(lambda: backend.poll(ticket, CARD), lambda s: s.step == FIRST + 5)
    assert status.steps == 20
    fake.finish()
    assert until(lambda: backend.poll(ticket, CARD), ended).state == "succeeded"


def test_all_is_seen_without_any_socket(fake: FakeComfyUI, make: Make) -> None:
    fake.sockets_refused = True
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    assert backend.poll(ticket, CARD).state == "queued"
    fake.begin()
    assert backend.poll(ticket, CARD).state == "running"
    fake.finish()
    assert backend.poll(ticket, CARD).state == "succeeded"
    assert fake.connections == 0


def test_a_new_process_goes_on_with_only_the_ticket(
    fake: FakeComfyUI, make: Make, tmp_path: Path
) -> None:
    ticket = make(fake).submit(order_of(CARD), CARD)
    prompt = fake.begin()
    fake.step(prompt.samplers[0], FIRST, FIRST)
    later = make(fake)
    again = Ticket(ticket.remote_id, ticket.endpoint, dict(ticket.data))
    assert until(lambda: later.poll(again, CARD), lambda _: fake.connections == 2)
    # It listens under the old client's id, so it hears how the prompt goes on.
    fake.step(prompt.samplers[1], 7, SECOND)
    until(lambda: later.poll(again, CARD), lambda s: s.step >= 7)
    fake.finish()
    assert until(lambda: later.poll(again, CARD), ended).state == "succeeded"
    assert later.fetch(again, CARD, tmp_path).video.read_bytes() == small_mp4()


def test_two_jobs_of_a_server_share_one_socket(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    tickets = [backend.submit(order_of(CARD), CARD) for _ in range(2)]
    assert fake.connections == 1
    assert backend.poll(tickets[1], CARD).detail.endswith("1 before it")
    for ticket in tickets:
        prompt = fake.begin()
        assert prompt.id == ticket.remote_id
        fake.step(prompt.samplers[0], 2, FIRST, preview=JPEG + ticket.remote_id.encode())
        status = until(lambda t=ticket: backend.poll(t, CARD), lambda s: s.preview)  # type: ignore[misc]
        assert status.preview == JPEG + ticket.remote_id.encode()
        fake.finish()
        until(lambda t=ticket: backend.poll(t, CARD), ended)  # type: ignore[misc]
    assert fake.connections == 1


def test_the_thread_ends_with_the_last_job(new: FakeComfyUI, make: Make) -> None:
    before = set(threading.enumerate())
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    assert any(t.name == "kinoloom-comfyui" for t in set(threading.enumerate()) - before)
    new.begin()
    new.finish()
    until(lambda: backend.poll(ticket, CARD), ended)
    end = time.monotonic() + DEADLINE
    while any(t.name == "kinoloom-comfyui" for t in set(threading.enumerate()) - before):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_hostile_messages_change_nothing(new: FakeComfyUI, make: Make) -> None:
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    prompt = new.begin()
    new.step(prompt.samplers[0], 2, FIRST)
    until(lambda: backend.poll(ticket, CARD), lambda s: s.step == 2)
    for message in (
        "",
        "no json",
        "[" * 5000,
        b"",
        b"\0",
        b"\0\0\0\4\xff\xff\xff\xff",
        b"\0" * 100,
    ):
        new.send(message)
    new.send("x" * (9 * 2**20))  # more than is taken: the connection ends
    until(lambda: backend.poll(ticket, CARD), lambda _: new.connections == 2)
    new.step(prompt.samplers[0], 3, FIRST)
    until(lambda: backend.poll(ticket, CARD), lambda s: s.step == 3)


@pytest.mark.parametrize(
    ("exception", "message", "kind"),
    [
        (
            "torch.OutOfMemoryError",
            "Allocation on device 0 would exceed allowed memory.",
            ErrorKind.INSUFFICIENT_VRAM,
        ),
        (
            "FileNotFoundError",
            "[Errno 2] No such file or directory: 'a.safetensors'",
            ErrorKind.MODEL_NOT_FOUND,
        ),
        ("ValueError", "tensor sizes do not match", ErrorKind.UNKNOWN),
    ],
)
def test_what_a_node_raises_is_named(
    fake: FakeComfyUI, make: Make, exception: str, message: str, kind: ErrorKind
) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    fake.begin()
    fake.fail(exception, message, "KSamplerAdvanced")
    status = until(lambda: backend.poll(ticket, CARD), ended)
    assert (status.state, status.charged) == ("failed", Decimal(0))
    assert status.error is not None
    assert status.error.kind is kind
    assert status.error.details["node_type"] == "KSamplerAdvanced"
    assert message[:20] in status.error.cause
    assert "KSamplerAdvanced" in status.error.cause
    assert status.error.hints


def test_a_restarted_server_lost_the_job_which_may_be_tried_again(
    fake: FakeComfyUI, make: Make
) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    fake.restart()
    status = until(lambda: backend.poll(ticket, CARD), ended)
    assert status.state == "failed"
    assert isinstance(status.error, WorkerUnavailable)
    assert status.error.recovery.retry == "later"


def test_a_server_that_is_down_is_a_network_error_and_the_job_stays(
    new: FakeComfyUI, make: Make
) -> None:
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    new.close()
    with pytest.raises(NetworkFailed):
        backend.poll(ticket, CARD)
    new.listen()  # the way to it is open again, and it still has the job
    assert backend.poll(ticket, CARD).state == "queued"


def test_an_interruption_on_the_server_is_a_cancel(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    fake.begin().interrupted = True
    fake.obey()
    assert until(lambda: backend.poll(ticket, CARD), ended).state == "cancelled"


def test_a_missing_node_is_named_before_anything_is_sent(fake: FakeComfyUI, make: Make) -> None:
    fake.nodes = without(fake.nodes, "KSamplerAdvanced")
    with pytest.raises(ModelNotFound) as caught:
        make(fake).submit(order_of(CARD), CARD)
    (missing,) = caught.value.details["missing"]
    assert (missing["server"], missing["name"]) == (fake.url, "KSamplerAdvanced")
    assert ("POST", "/prompt") not in fake.asked


def test_a_file_that_vanishes_is_named_by_the_server(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    assert backend.readiness(CARD).ready
    fake.nodes = without(fake.nodes, HIGH)  # after it was asked for its files
    with pytest.raises(ModelNotFound) as caught:
        backend.submit(order_of(CARD), CARD)
    assert HIGH in str(caught.value.details["missing"])
    assert caught.value.details["missing"][0]["folder"] == "diffusion_models"
    assert not fake.bill
    assert not backend.readiness(CARD).ready  # what it said was not true any more


def test_a_missing_node_is_named_by_the_server(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    assert backend.readiness(CARD).ready
    fake.nodes = without(fake.nodes, "CLIPTextEncode")
    with pytest.raises(ModelNotFound) as caught:
        backend.submit(order_of(CARD), CARD)
    assert "CLIPTextEncode" in str(caught.value.details["missing"])


def test_a_value_that_the_server_refuses_is_a_mistake_in_the_request(
    fake: FakeComfyUI, make: Make
) -> None:
    backend = make(fake)
    assert backend.readiness(CARD).ready
    fake.nodes["KSamplerAdvanced"]["input"]["required"]["cfg"][1]["max"] = 2.0
    with pytest.raises(InvalidRequest) as caught:
        backend.submit(order_of(CARD), CARD)
    assert "cfg" in caught.value.cause
    assert not fake.bill
