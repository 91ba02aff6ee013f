"""Several servers, and what is said of them before a job."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import FakeComfyUI
from fakes.comfyui_cards import HIGH, two_experts
from fakes.comfyui_validation import without
from fakes.orders import order_of, png
from kinoloom.backends.comfyui.backend import ComfyUIBackend
from kinoloom.errors import (
    NetworkFailed,
    WorkerUnavailable,
)

CARD = two_experts()
FIRST, SECOND = 11, 9
"""Of its 20 steps; see `wan.steps_of_first`."""
Make = Callable[..., ComfyUIBackend]


def test_the_least_busy_server_gets_the_job(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    first, second = two
    backend = make(first, second)
    used = [backend.submit(order_of(CARD), CARD).endpoint for _ in range(4)]
    assert sorted(used) == sorted([first.url, second.url] * 2)


def test_of_equally_busy_servers_the_one_with_more_free_memory(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    two[1].devices[0]["vram_free"] = 47 * 2**30
    assert make(*two).submit(order_of(CARD), CARD).endpoint == two[1].url


def test_only_a_server_with_the_model_gets_the_job(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    first, second = two
    first.nodes = without(first.nodes, HIGH)
    backend = make(first, second)
    assert backend.readiness(CARD).ready
    used = {backend.submit(order_of(CARD), CARD).endpoint for _ in range(3)}
    assert used == {second.url}


def test_a_server_that_is_down_is_passed_over(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    backend = make(*two)
    two[0].close()
    assert backend.submit(order_of(CARD), CARD).endpoint == two[1].url
    two[1].close()
    with pytest.raises(NetworkFailed) as caught:
        backend.submit(order_of(CARD), CARD)
    assert two[0].url in caught.value.cause
    assert two[1].url in caught.value.cause


def test_a_server_that_fails_before_it_is_handed_the_job_is_passed_over(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make, tmp_path: Path
) -> None:
    two[0].uploads_fail = True
    card = two_experts(files={"high_noise": ["wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"]})
    order = order_of(card, "i2v", inputs={"image": png(tmp_path / "a.png", 832, 480)})
    assert make(*two).submit(order, card).endpoint == two[1].url
    assert two[0].bill.total() == 0


def test_jobs_at_the_same_time_are_shared_out(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    backend = make(*two)
    with ThreadPoolExecutor(8) as threads:
        tickets = list(threads.map(lambda _: backend.submit(order_of(CARD), CARD), range(8)))
    assert len({t.remote_id for t in tickets}) == 8
    assert abs(len(two[0].pending) - len(two[1].pending)) <= 4
    assert two[0].bill.total() + two[1].bill.total() == 8


def test_a_ticket_stays_with_its_server(two: tuple[FakeComfyUI, FakeComfyUI], make: Make) -> None:
    ticket = make(two[0]).submit(order_of(CARD), CARD)
    later = make(two[1])  # the settings name another one by now
    assert later.poll(ticket, CARD).state == "queued"


def test_servers_are_listed_with_what_they_have(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    backend = make(*two, "http://127.0.0.1:9")
    backend.submit(order_of(CARD), CARD)
    one, other, dead = make(*two, "http://127.0.0.1:9").servers()
    assert (one.version, other.version) == ("0.38.1", "0.2.2")
    assert (one.vram_total, one.vram_free) == (48 * 2**30, 40 * 2**30)
    assert one.queue + other.queue == 1
    assert one.reachable
    assert not dead.reachable
    assert dead.reason.startswith("It does not answer.")


@pytest.mark.parametrize(
    "devices",
    [
        [],
        [{"name": "cpu", "type": "cpu", "index": None, "vram_total": 2**36, "vram_free": 2**35}],
        [
            {
                "name": "privateuseone",
                "type": "privateuseone",
                "vram_total": 2**30,
                "vram_free": 2**30,
            }
        ],
        [{"name": "mps", "type": "mps", "vram_total": None, "vram_free": "much"}],
        [None],
    ],
)
def test_odd_devices_have_no_video_memory(new: FakeComfyUI, make: Make, devices: list[Any]) -> None:
    new.devices = devices
    card = two_experts(settings={"vram_gib": 24})
    assert make(new).servers()[0].vram_total is None
    assert make(new).readiness(card).ready
    assert make(new).readiness(card).reasons == ()


def test_too_little_memory_is_a_warning_where_the_card_says_what_it_needs(
    new: FakeComfyUI, make: Make
) -> None:
    card = two_experts(settings={"vram_gib": 24})
    assert make(new).readiness(card).reasons == ()
    new.devices[0] |= {"vram_free": 5 * 2**30}
    told = make(new).readiness(card)
    assert told.ready
    assert "has free now 5.0 GiB" in told.reasons[0]
    new.devices[0] |= {"vram_total": 12 * 2**30}
    assert "has 12.0 GiB" in make(new).readiness(card).reasons[0]
    assert make(new).readiness(CARD).reasons == ()


def test_readiness_says_what_is_missing_where(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    first, second = two
    first.nodes = without(first.nodes, HIGH)
    second.nodes = without(second.nodes, "KSamplerAdvanced")
    told = make(first, second, "http://127.0.0.1:9").readiness(CARD)
    assert not told.ready
    file, node, dead = told.reasons
    assert first.url in file
    assert HIGH in file
    assert "models/diffusion_models" in file
    assert second.url in node
    assert "KSamplerAdvanced" in node
    assert dead.startswith("http://127.0.0.1:9: ")
    assert any(f"Put {HIGH} into models/diffusion_models" in hint for hint in told.hints)


def test_what_is_no_comfyui_server_is_not_ready(make: Make, new: FakeComfyUI) -> None:
    told = make(f"{new.url}/queue").readiness(CARD)
    assert not told.ready
    assert told.reasons


def test_without_a_server_it_says_how_to_set_one(make: Make) -> None:
    backend = make()
    told = backend.readiness(CARD)
    assert not told.ready
    assert "backends.comfyui.servers" in told.hints[0]
    assert backend.servers() == []
    with pytest.raises(WorkerUnavailable):
        backend.submit(order_of(CARD), CARD)


def test_many_models_are_looked_at_with_one_question(new: FakeComfyUI, make: Make) -> None:
    backend = make(new)
    cards = [two_experts(id=f"comfyui-{i}") for i in range(20)]
    assert all(backend.readiness(card).ready for card in cards)
    assert new.asked.count(("GET", "/object_info")) == 1
    assert new.asked.count(("GET", "/system_stats")) == 1


def test_a_call_from_another_page_is_refused_and_ours_is_not(new: FakeComfyUI, make: Make) -> None:
    import httpx

    refused = httpx.get(f"{new.url}/queue", headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403
    assert make(new).readiness(CARD).ready
