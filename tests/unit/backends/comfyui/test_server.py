"""A server's answers, also those that no ComfyUI gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kinoloom.backends.comfyui import server as module
from kinoloom.backends.comfyui.outputs import Output
from kinoloom.backends.comfyui.server import Look, NotConnected, Server, Stats
from kinoloom.errors import KinoloomError, NetworkFailed, Uncertain, WorkerUnavailable

KEY = "5e0f2c1a-0d7f-4b5e-9a5c-1f2e3d4c5b6a"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"steps": 4}}}
EXTRA = {"client_id": "c", "kinoloom": KEY}


class Scripted:
    """Answers what a test says, by method and path; the rest is not there."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, bytes]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                wanted = f"{self.command} {self.path}"
                script.asked.append((wanted, body))
                status, content = script.answers.get(wanted, (404, b"404: Not Found"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815 - the name is the library's

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def say(self, wanted: str, data: object, status: int = 200) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.answers[wanted] = (status, content)


@pytest.fixture
def script() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def server(script: Scripted) -> Server:
    return Server(script.url)


def item(number: object = 1, prompt_id: object = "a", extra: object = None) -> list[Any]:
    return [number, prompt_id, GRAPH, EXTRA if extra is None else extra, ["9"]]


def queue(script: Scripted, running: object, pending: object) -> None:
    script.say("GET /queue", {"queue_running": running, "queue_pending": pending})


# --- old servers: queue, then history ---------------------------------------------------------


def test_the_place_in_the_queue_is_by_number(script: Scripted, server: Server) -> None:
    queue(script, [item(1, "a")], [item(7, "c"), item(-3, "front"), item(4, "b")])
    assert server.look("a").state == "running"
    assert (server.look("front").state, server.look("front").before) == ("queued", 1)
    assert server.look("c") == Look("queued", "c", before=3, graph=GRAPH, client_id="c")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"status_str": "success", "completed": True, "messages": []}, "succeeded"),
        ({"status_str": "error", "completed": False, "messages": []}, "failed"),
        (
            {"status_str": "error", "messages": [["execution_interrupted", {}]]},
            "cancelled",
        ),
        (None, "succeeded"),
        ({"status_str": "error", "messages": "none"}, "failed"),
        ({"status_str": "error", "messages": [None, ["execution_error"], 3]}, "failed"),
    ],
)
def test_the_history_says_how_it_ended(
    script: Scripted, server: Server, status: object, state: str
) -> None:
    queue(script, [], [])
    shown = {"9": {"gifs": [{"filename": "a.mp4"}]}}
    entry = {"prompt": item(), "outputs": shown, "status": status}
    script.say("GET /history/a", {"a": entry})
    look = server.look("a")
    assert (look.state, look.outputs, look.graph) == (state, shown, GRAPH)


def test_the_error_of_a_node_is_kept(script: Scripted, server: Server) -> None:
    queue(script, [], [])
    failed = ["execution_error", {"exception_type": "ValueError"}]
    status = {"status_str": "error", "messages": [["execution_start", {}], failed]}
    script.say("GET /history/a", {"a": {"status": status}})
    assert server.look("a").error == {"exception_type": "ValueError"}


def test_what_is_in_neither_is_lost(script: Scripted, server: Server) -> None:
    queue(script, [], [])
    script.say("GET /history/a", {})
    assert server.look("a").state == "lost"


@pytest.mark.parametrize(
    "entries",
    [None, {}, "a", [None], [[1]], [[1, 2, 3, 4]], [["1", "a", {}, {}]], [[1, ["a"], {}, {}, []]]],
)
def test_an_odd_queue_is_an_empty_one(script: Scripted, server: Server, entries: object) -> None:
    queue(script, entries, entries)
    script.say("GET /history/a", {})
    assert server.look("a").state == "lost"


def test_an_order_is_found_by_its_mark(script: Scripted, server: Server) -> None:
    queue(script, [], [item(1, "other", {"client_id": "c"}), item(2, "theirs")])
    script.say(f"GET /history/{KEY}", {})
    found = server.find(KEY)
    assert found is not None
    assert found.prompt_id == "theirs"

    queue(script, [], [])
    entry = {"prompt": item(2, "theirs"), "outputs": {}, "status": {"status_str": "success"}}
    script.say("GET /history?max_items=200", {"x": {"prompt": None}, "y": 3, "theirs": entry})
    found = server.find(KEY)
    assert found is not None
    assert (found.prompt_id, found.state) == ("theirs", "succeeded")

    script.say("GET /history?max_items=200", {})
    assert server.find(KEY) is None


# --- new servers: jobs ------------------------------------------------------------------------


@pytest.fixture
def jobs(script: Scripted) -> Scripted:
    script.say("GET /api/jobs?limit=1", {"jobs": [], "pagination": {}})
    return script


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("in_progress", "running"),
        ("completed", "succeeded"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("pending", "queued"),
    ],
)
def test_a_job_is_seen_in_one_answer(
    jobs: Scripted, server: Server, status: str, state: str
) -> None:
    queue(jobs, [item(1, "b")], [item(2, KEY)])
    sent = {"prompt": GRAPH, "extra_data": EXTRA}
    jobs.say(f"GET /api/jobs/{KEY}", {"id": KEY, "status": status, "workflow": sent})
    look = server.look(KEY)
    assert (look.state, look.graph, look.client_id) == (state, GRAPH, "c")
    assert look.before == (1 if state == "queued" else 0)


def test_a_job_that_is_not_there_is_lost(jobs: Scripted, server: Server) -> None:
    jobs.say(f"GET /api/jobs/{KEY}", {"error": "Job not found"}, 404)
    assert server.look(KEY).state == "lost"
    assert server.find(KEY) is None  # such a server takes our ids: nothing else is to be asked
    assert not any("history" in wanted for wanted, _ in jobs.asked)


def test_an_unknown_state_is_none(jobs: Scripted, server: Server) -> None:
    jobs.say(f"GET /api/jobs/{KEY}", {"status": "asleep"})
    with pytest.raises(NetworkFailed, match="no ComfyUI server"):
        server.look(KEY)


def test_a_failing_server_is_not_taken_for_an_old_one(script: Scripted, server: Server) -> None:
    script.say("GET /api/jobs?limit=1", b"Bad Gateway", 502)
    with pytest.raises(WorkerUnavailable):
        server.look(KEY)
    script.say("GET /api/jobs?limit=1", {"jobs": []})
    script.say(f"GET /api/jobs/{KEY}", {"status": "completed"})
    assert server.look(KEY).state == "succeeded"


# --- handing in -------------------------------------------------------------------------------


def test_a_prompt_is_sent_with_all_that_finds_it_again(script: Scripted, server: Server) -> None:
    script.say("POST /prompt", {"prompt_id": KEY, "number": 1, "node_errors": {}})
    assert server.prompt(KEY, "c", GRAPH).data["prompt_id"] == KEY
    assert json.loads(script.asked[-1][1]) == {
        "prompt": GRAPH,
        "prompt_id": KEY,
        "client_id": "c",
        "extra_data": {"kinoloom": KEY},
    }


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, b"Internal Server Error"),
        (502, b"{}"),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"prompt_id": 7}'),
        (302, b""),
        (200, b"[" * 200_000),
    ],
)
def test_whatever_is_no_clear_answer_is_uncertain(
    script: Scripted, server: Server, status: int, content: bytes
) -> None:
    script.say("POST /prompt", content, status)
    with pytest.raises(Uncertain):
        server.prompt(KEY, "c", GRAPH)
    assert len(script.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 413, 429])
def test_a_refusal_is_an_answer(script: Scripted, server: Server, status: int) -> None:
    script.say("POST /prompt", {"error": "no"}, status)
    assert server.prompt(KEY, "c", GRAPH).status == status


def test_without_a_connection_nothing_was_sent() -> None:
    with pytest.raises(NotConnected):
        Server("http://127.0.0.1:9").prompt(KEY, "c", GRAPH)


def test_an_upload_is_known_by_the_name_in_the_answer(
    script: Scripted, server: Server, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    told = {"name": "x (1).png", "subfolder": "kinoloom", "type": "input", "asset": {}}
    script.say("POST /upload/image", told)
    assert server.upload(picture, "x.png", "kinoloom") == "kinoloom/x (1).png"
    sent = script.asked[-1][1]
    assert b'filename="x.png"' in sent
    assert b"picture" in sent
    script.say("POST /upload/image", told | {"subfolder": ""})
    assert server.upload(picture, "x.png", "") == "x (1).png"
    for odd in (b"", b"{}", b'{"name": "", "subfolder": ""}', b'{"name": "a", "subfolder": 3}'):
        script.say("POST /upload/image", odd)
        with pytest.raises(NetworkFailed):
            server.upload(picture, "x.png", "kinoloom")


# --- stopping ---------------------------------------------------------------------------------


def test_the_newest_route_is_taken(script: Scripted, server: Server) -> None:
    script.say(f"POST /api/jobs/{KEY}/cancel", {"cancelled": True})
    assert server.cancel(KEY)
    script.say(f"POST /api/jobs/{KEY}/cancel", {"cancelled": False})
    assert not server.cancel(KEY)
    assert len(script.asked) == 2


@pytest.mark.parametrize("status", [404, 405])
def test_only_what_runs_for_us_is_interrupted(
    script: Scripted, server: Server, status: int
) -> None:
    script.say(f"POST /api/jobs/{KEY}/cancel", b"", status)
    script.say("POST /interrupt", b"")
    script.say(f"GET /history/{KEY}", {})
    queue(script, [item(1, "theirs")], [])
    assert not server.cancel(KEY)
    assert not any(wanted == "POST /interrupt" for wanted, _ in script.asked)
    queue(script, [item(1, KEY)], [])
    assert server.cancel(KEY)
    assert (b'{"prompt_id":"%s"}' % KEY.encode()) == script.asked[-1][1].replace(b" ", b"")


def test_what_began_while_it_was_taken_out_is_interrupted(
    script: Scripted, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.say("POST /queue", b"")
    script.say("POST /interrupt", b"")
    looks = iter([Look("queued", KEY), Look("running", KEY)])
    monkeypatch.setattr(server, "look", lambda _: next(looks))
    assert server.cancel(KEY)
    sent = [wanted for wanted, _ in script.asked]
    assert sent[-2:] == ["POST /queue", "POST /interrupt"]


# --- what it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "total"),
    [
        ([{"type": "cuda", "name": "L40S", "vram_total": 48.0, "vram_free": 40}], 48),
        ([{"type": "mps", "vram_total": 64, "vram_free": 32}, {"type": "cpu"}], 64),
        ([{"type": "cpu", "vram_total": 64, "vram_free": 32}], None),
        ([{"type": "cuda", "vram_total": -1, "vram_free": True}], None),
        ([{"type": "cuda", "vram_total": 10**30}], None),
        ([{"type": ["cuda"]}], None),
        ({}, None),
        (None, None),
    ],
)
def test_memory_is_what_a_gpu_says(
    script: Scripted, server: Server, devices: object, total: int | None
) -> None:
    script.say("GET /system_stats", {"system": {"comfyui_version": "0.3.64"}, "devices": devices})
    stats = server.stats()
    assert (stats.version, stats.vram_total) == ("0.3.64", total)


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"system": [], "devices": {}}'])
def test_a_server_may_say_nothing_of_itself(
    script: Scripted, server: Server, content: bytes
) -> None:
    script.say("GET /system_stats", content)
    assert server.stats() == Stats()


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ({"exec_info": {"queue_remaining": 3}}, 3),
        ({"exec_info": {"queue_remaining": -3}}, 0),
        ({"exec_info": {"queue_remaining": "3"}}, 0),
        ([], 0),
    ],
)
def test_how_many_wait(script: Scripted, server: Server, content: object, count: int) -> None:
    script.say("GET /prompt", content)
    assert server.waiting() == count


@pytest.mark.parametrize(("content", "status"), [(b"<html>", 200), (b"", 204), (b"no", 403)])
def test_what_is_no_comfyui_says_so(
    script: Scripted, server: Server, content: bytes, status: int
) -> None:
    script.say("GET /system_stats", content, status)
    with pytest.raises(KinoloomError) as caught:
        server.stats()
    assert caught.value.hints


def test_an_answer_without_end_is_not_read_to_it(
    script: Scripted, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    script.say("GET /object_info", b'{"a": "' + b"x" * 5000 + b'"}')
    with pytest.raises(NetworkFailed, match="too large"):
        server.object_info()


def test_the_address_of_a_file_is_quoted(server: Server) -> None:
    url = server.view_url(Output("9", "a b&type=input#.mp4", "x/../y"))
    query = "filename=a+b%26type%3Dinput%23.mp4&subfolder=x%2F..%2Fy&type=output"
    assert url == f"{server.url}/view?{query}"


def test_an_id_stays_one_part_of_a_path(script: Scripted, server: Server) -> None:
    queue(script, [], [])
    script.say("GET /history/..%2Fqueue", {})
    assert server.look("../queue").state == "lost"
