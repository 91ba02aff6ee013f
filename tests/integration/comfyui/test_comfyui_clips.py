"""From an order to a file: through the backend to servers of both versions, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes.clip import small_mp4
from fakes.comfyui import JPEG, FakeComfyUI
from fakes.comfyui_cards import HIGH, two_experts
from fakes.following import ended, until
from fakes.orders import order_of, png
from kinoloom.backends.base import Order
from kinoloom.backends.comfyui.backend import ComfyUIBackend
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    InvalidMedia,
    InvalidRequest,
    NetworkFailed,
    NotFound,
    Uncertain,
    WorkerUnavailable,
)

CARD = two_experts()
FIRST, SECOND = 11, 9
"""Of its 20 steps; see `wan.steps_of_first`."""
Make = Callable[..., ComfyUIBackend]


def test_a_clip_is_made(fake: FakeComfyUI, make: Make, tmp_path: Path) -> None:
    backend = make(fake)
    order = order_of(CARD)
    ticket = backend.submit(order, CARD)
    assert ticket.endpoint == fake.url
    assert (ticket.remote_id == order.key) is fake.new
    assert fake.bill == {order.key: 1}
    assert backend.poll(ticket, CARD).state == "queued"

    prompt = fake.begin()
    first, second = prompt.samplers
    fake.step(first, 3, FIRST, preview=JPEG)
    status = until(lambda: backend.poll(ticket, CARD), lambda s: s.preview)
    assert (status.state, status.step, status.steps) == ("running", 3, 20)
    assert status.preview == JPEG
    assert status.progress == pytest.approx(3 / 20)
    fake.step(first, FIRST, FIRST)
    fake.step(second, 4, SECOND)
    status = until(lambda: backend.poll(ticket, CARD), lambda s: s.step == FIRST + 4)
    assert status.steps == 20

    fake.finish()
    status = until(lambda: backend.poll(ticket, CARD), ended)
    assert (status.state, status.progress, status.charged) == ("succeeded", 1.0, Decimal(0))
    fetched = backend.fetch(ticket, CARD, tmp_path)
    assert fetched.video.read_bytes() == small_mp4()
    assert fetched.video.parent == tmp_path
    assert fetched.versions["comfyui"] == fake.comfyui_version
    assert fetched.versions["high_noise"] == HIGH
    assert fetched.notes == ()


def test_the_prompt_carries_the_order(fake: FakeComfyUI, make: Make) -> None:
    order = order_of(CARD, prompt="ein Bär – im Schnee", seed=2**40)
    make(fake).submit(order, CARD)
    prompt = fake.pending[0]
    words = [x["inputs"]["text"] for x in prompt.graph.values() if "text" in x["inputs"]]
    assert "ein Bär – im Schnee" in words
    assert prompt.graph[prompt.samplers[0]]["inputs"]["noise_seed"] == 2**40
    assert prompt.extra["kinoloom"] == order.key


def test_a_picture_is_uploaded_once_and_used_under_the_name_it_got(
    fake: FakeComfyUI, make: Make, tmp_path: Path
) -> None:
    backend = make(fake)
    picture = png(tmp_path / "first.png", 832, 480)
    card = two_experts(files={"high_noise": ["wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"]})
    for _ in range(2):
        backend.submit(order_of(card, "i2v", inputs={"image": picture}), card)
    (name,) = fake.uploads
    assert fake.uploads[name] == picture.read_bytes()
    loaded = [p.graph[p.node("LoadImage")]["inputs"]["image"] for p in fake.pending]
    assert loaded == [name, name]

    # Another picture lies there under that name: the server calls ours differently.
    other = png(tmp_path / "other.png", 832, 480, filler=9)
    fake.uploads = {name: b"something else"}
    backend.submit(order_of(card, "i2v", inputs={"image": picture}), card)
    backend.submit(order_of(card, "i2v", inputs={"image": other}), card)
    renamed = fake.pending[2].graph[fake.pending[2].node("LoadImage")]["inputs"]["image"]
    assert renamed == name.replace(".png", " (1).png")
    assert fake.uploads[renamed] == picture.read_bytes()
    assert len(fake.uploads) == 3


def test_a_breaking_download_goes_on(fake: FakeComfyUI, make: Make, tmp_path: Path) -> None:
    backend, order = make(fake), order_of(CARD)
    ticket = backend.submit(order, CARD)
    fake.begin()
    fake.finish()
    fake.view_breaks_after = 300
    assert backend.fetch(ticket, CARD, tmp_path).video.read_bytes() == small_mp4()
    assert fake.asked.count(("GET", "/view")) == 2


def test_a_file_that_is_gone_is_not_found(fake: FakeComfyUI, make: Make, tmp_path: Path) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    fake.begin()
    fake.finish()
    fake.files.clear()
    with pytest.raises(NotFound):
        backend.fetch(ticket, CARD, tmp_path)


def test_what_is_not_finished_is_not_fetched(new: FakeComfyUI, make: Make, tmp_path: Path) -> None:
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    with pytest.raises(NotFound, match="no finished job"):
        backend.fetch(ticket, CARD, tmp_path)
    new.restart()
    with pytest.raises(NotFound) as caught:
        backend.fetch(ticket, CARD, tmp_path)
    assert "restarted" in caught.value.cause


@pytest.mark.parametrize("key", ["videos", "gifs", "files", "anything"])
def test_the_output_is_found_under_any_key(
    new: FakeComfyUI, make: Make, tmp_path: Path, key: str
) -> None:
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    new.begin()
    new.files["temp", "a b", "ünï.mp4"] = b"the preview"
    new.files["output", "a b", "ünï.mp4"] = small_mp4()
    entries = [
        {"filename": "ünï.mp4", "subfolder": "a b", "type": "output"},
        {"filename": "ünï.mp4", "subfolder": "a b", "type": "temp"},
    ]
    new.finish({"77": {key: entries}})
    assert until(lambda: backend.poll(ticket, CARD), ended).state == "succeeded"
    assert backend.fetch(ticket, CARD, tmp_path).video.read_bytes() == small_mp4()


def test_pictures_instead_of_a_video_fail_with_what_to_do(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    fake.begin()
    pictures = [{"filename": f"a_{i}.png", "subfolder": "", "type": "output"} for i in range(81)]
    fake.finish({"9": {"images": pictures}})
    status = until(lambda: backend.poll(ticket, CARD), ended)
    assert status.state == "failed"
    assert isinstance(status.error, InvalidMedia)
    assert "SaveVideo" in status.error.hints[0]


def test_the_server_chooses_no_name_on_this_disk(
    new: FakeComfyUI, make: Make, tmp_path: Path
) -> None:
    backend = make(new)
    ticket = backend.submit(order_of(CARD), CARD)
    new.begin()
    new.files["output", "../..", "evil.mp4"] = small_mp4()
    new.finish({"9": {"gifs": [{"filename": "evil.mp4", "subfolder": "../..", "type": "output"}]}})
    fetched = backend.fetch(ticket, CARD, tmp_path)
    assert fetched.video == tmp_path / f"{ticket.remote_id}.mp4"


@pytest.mark.parametrize("fault", ["drop after", "500 after", "garbage after"])
def test_an_unclear_answer_is_uncertain_and_found_again(
    fake: FakeComfyUI, make: Make, fault: Any
) -> None:
    backend, order = make(fake), order_of(CARD)
    fake.faults = [fault]
    with pytest.raises(Uncertain):
        backend.submit(order, CARD)
    ticket = make(fake).find(order, CARD)  # another process does it
    assert ticket is not None
    assert fake.bill == {order.key: 1}
    fake.begin()
    running = backend.find(order, CARD)
    assert running is not None
    assert running.remote_id == ticket.remote_id
    fake.finish()
    finished = backend.find(order, CARD)
    assert finished is not None
    assert sum(finished.data["samplers"].values()) == 20
    assert until(lambda: backend.poll(finished, CARD), ended).state == "succeeded"


def test_what_never_arrived_is_certainly_not_there(fake: FakeComfyUI, make: Make) -> None:
    backend, order = make(fake), order_of(CARD)
    backend.submit(order_of(CARD), CARD)
    fake.faults = ["drop before"]
    with pytest.raises(Uncertain):
        backend.submit(order, CARD)
    assert backend.find(order, CARD) is None
    assert fake.bill[order.key] == 0


def test_while_a_server_cannot_be_asked_nothing_is_certain(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    backend, order = make(*two), order_of(CARD)
    two[1].close()
    with pytest.raises(NetworkFailed) as caught:
        backend.find(order, CARD)
    assert two[1].url in caught.value.cause
    two[1].listen()
    assert backend.find(order, CARD) is None


def test_an_order_found_on_one_server_is_certain_whatever_the_others_do(
    two: tuple[FakeComfyUI, FakeComfyUI], make: Make
) -> None:
    order = order_of(CARD)
    make(two[1]).submit(order, CARD)
    two[0].close()
    ticket = make(*two).find(order, CARD)
    assert ticket is not None
    assert ticket.endpoint == two[1].url


def test_a_create_is_made_once(new: FakeComfyUI, make: Make) -> None:
    backend = make(new)
    new.faults = ["500 after", "500 after"]
    with pytest.raises(Uncertain):
        backend.submit(order_of(CARD), CARD)
    assert new.asked.count(("POST", "/prompt")) == 1


def test_a_waiting_job_is_taken_out_of_the_queue(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    kept, gone = (backend.submit(order_of(CARD), CARD) for _ in range(2))
    assert backend.cancel(gone, CARD).state == "cancelled"
    assert [p.id for p in fake.pending] == [kept.remote_id]
    assert (("POST", f"/api/jobs/{gone.remote_id}/cancel") in fake.asked) is True
    assert (("POST", "/queue") in fake.asked) is not fake.new


def test_a_running_job_is_stopped_at_its_next_step(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    prompt = fake.begin()
    assert backend.cancel(ticket, CARD).state == "running"
    assert prompt.interrupted
    fake.obey()
    assert until(lambda: backend.poll(ticket, CARD), ended).state == "cancelled"
    assert (("POST", "/interrupt") in fake.asked) is not fake.new


def test_a_job_that_runs_for_somebody_else_is_not_stopped(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ours = backend.submit(order_of(CARD), CARD)
    fake.begin()
    fake.finish()
    make(fake).submit(order_of(CARD), CARD)
    theirs = fake.begin()
    assert backend.cancel(ours, CARD).state == "succeeded"
    assert not theirs.interrupted


def test_cancelling_what_the_server_lost_says_so(fake: FakeComfyUI, make: Make) -> None:
    backend = make(fake)
    ticket = backend.submit(order_of(CARD), CARD)
    fake.restart()
    status = backend.cancel(ticket, CARD)
    assert status.state == "failed"
    assert isinstance(status.error, WorkerUnavailable)


# --- models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["old", "new"])
def test_every_model_that_a_server_can_run_makes_a_clip(
    version: Any, make: Make, tmp_path: Path
) -> None:
    cards = [card for card in Catalog.load(tmp_path) if card.backend == "comfyui"]
    made = []
    with FakeComfyUI(version, auto=True) as server:
        backend = make(server)
        for card in cards:
            if not backend.readiness(card).ready:
                continue
            width, height = card.sizes.default
            for task in card.tasks:
                named = ("image", "last_image") if task == "flf2v" else ("image",)
                names = named if task != "t2v" else ()
                inputs = {n: png(tmp_path / f"{n}.png", width, height) for n in names}
                ticket = backend.submit(order_of(card, task, inputs=inputs), card)
                status = until(partial(backend.poll, ticket, card), ended)
                assert status.state == "succeeded", card.id
                assert backend.fetch(ticket, card, tmp_path).video.stat().st_size > 0
                made.append(card.id)
    assert "comfyui-wan-2.2-t2v-a14b" in made
    assert len(set(made)) >= len(cards) // 2


@pytest.fixture
def workflow(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a workflow that shows its frames, saves them, and saves them once more."""

    def write(**card: Any) -> Path:
        folder = tmp_path / "workflows"
        folder.mkdir()
        encoded = {"clip": ["1", 1]}
        graph = {
            "1": _node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors"),
            "2": _node("CLIPTextEncode", text="words", **encoded),
            "3": _node("EmptyLatentImage", width=512, height=512, batch_size=8),
            "4": _node(
                "KSampler",
                model=["1", 0],
                positive=["2", 0],
                negative=["2", 0],
                latent_image=["3", 0],
                seed=1,
                steps=4,
                cfg=7.0,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            ),
            "5": _node("VAEDecode", samples=["4", 0], vae=["1", 2]),
            "6": _node("SaveImage", images=["5", 0], filename_prefix="frames"),
            "7": _node("SaveWEBM", images=["5", 0], filename_prefix="clip", codec="vp9", fps=8.0,
                       crf=32.0),
        }  # fmt: skip
        (folder / "mine.json").write_text(json.dumps(graph))
        fields = {"title": "Mine", "inputs": {"prompt": "2.text", "seed": "4.seed"}}
        fields |= {"sizes": [512, 512], "frames": 8, "fps": 8} | card
        (folder / "mine.yaml").write_text(json.dumps(fields))
        return folder

    return write


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def test_a_workflow_of_the_users_own(
    fake: FakeComfyUI, workflow: Callable[..., Path], tmp_path: Path
) -> None:
    folder = workflow(output=7)
    comfyui = {"servers": [fake.url], "workflows": folder}
    settings = Settings(home=tmp_path, backends={"comfyui": comfyui})  # type: ignore[arg-type]
    backend = ComfyUIBackend(settings)
    (card,) = backend.cards(Catalog.load(tmp_path))
    assert backend.readiness(card).ready
    ticket = backend.submit(order_of(card, prompt="a fox", seed=99), card)
    prompt = fake.begin()
    assert prompt.graph["2"]["inputs"]["text"] == "a fox"
    assert prompt.graph["4"]["inputs"]["seed"] == 99
    fake.step("4", 2, 4)
    status = until(lambda: backend.poll(ticket, card), lambda s: s.step == 2)
    assert status.steps == 4
    fake.finish()
    assert until(lambda: backend.poll(ticket, card), ended).state == "succeeded"
    assert backend.fetch(ticket, card, tmp_path).video.read_bytes() == small_mp4()


def test_an_accepted_prompt_whose_video_is_dropped_has_failed(
    fake: FakeComfyUI, workflow: Callable[..., Path], tmp_path: Path
) -> None:
    comfyui = {"servers": [fake.url], "workflows": workflow()}
    settings = Settings(home=tmp_path, backends={"comfyui": comfyui})  # type: ignore[arg-type]
    backend = ComfyUIBackend(settings)
    (card,) = backend.cards(Catalog.load(tmp_path))
    assert backend.readiness(card).ready
    fake.nodes["SaveWEBM"]["input"]["required"]["crf"][1]["max"] = 20.0
    with pytest.raises(InvalidRequest) as caught:
        backend.submit(order_of(card), card)
    assert "SaveWEBM" in caught.value.cause
    assert fake.bill.total() == 1  # the pictures would have been made
    assert fake.pending == []


def test_many_jobs_on_two_servers_are_each_made_once(make: Make, tmp_path: Path) -> None:
    with FakeComfyUI("new", auto=True) as one, FakeComfyUI("old", auto=True) as other:
        backend = make(one, other)

        def whole(order: Order) -> bytes:
            ticket = backend.submit(order, CARD)
            status = until(lambda: backend.poll(ticket, CARD), ended)
            assert status.state == "succeeded"
            return backend.fetch(ticket, CARD, tmp_path).video.read_bytes()

        orders = [order_of(CARD) for _ in range(16)]
        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(whole, orders)) == {small_mp4()}
        assert one.bill + other.bill == {order.key: 1 for order in orders}
