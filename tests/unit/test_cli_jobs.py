from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kinoloom import cli
from kinoloom.config import load_settings
from kinoloom.store.held import held_store
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits
from kinoloom.store.store import Store
from paying import pay

WISHES = ("cancel", "hold", "release", "retry")

Kinoloom = Callable[..., Result]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return held_store(load_settings())


@pytest.fixture
def kinoloom() -> Kinoloom:
    """Run a command; an exception that is no exit fails the test."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def add(store: Store, **values: Any) -> JobRecord:
    given = {"queue": "gpu", "origin": "api", "request": {}, "task": "t2v", "model": "spark"}
    record = JobRecord(**(given | {"backend": "local", "prompt": "a red ball"} | values))
    return store.jobs.add(record)[0]


def test_nothing_yet(kinoloom: Kinoloom) -> None:
    assert kinoloom("jobs", "list").exit_code == 0
    assert json.loads(kinoloom("jobs", "list", "--json").stdout) == {"jobs": []}
    stats = kinoloom("stats")
    assert stats.exit_code == 0
    assert "0.00 USD" in stats.stdout


def test_jobs_are_listed_the_newest_first(kinoloom: Kinoloom, store: Store) -> None:
    old = add(store, prompt="an old ball", queue="cli-1234")
    new = add(
        store,
        state="running",
        model="wan-2.1",
        progress={"phase": "denoise", "step": 3, "steps": 9},
        webhook="https://user:secret@example.com/?token=secret",
    )
    shown = kinoloom("jobs", "list").stdout
    assert shown.index(new.id) < shown.index(old.id)
    assert "denoise 3/9" in shown
    assert "command" in shown
    data = json.loads(kinoloom("jobs", "list", "--json").stdout)
    assert [job["id"] for job in data["jobs"]] == [new.id, old.id]
    assert "secret" not in json.dumps(data)
    assert data["jobs"][0]["progress"]["step"] == 3


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--state", "held"), ["b"]),
        (("--state", "held", "--state", "queued"), ["b", "a"]),
        (("--queue", "api"), ["c"]),
        (("--model", "wan"), ["b"]),
        (("--search", "BALL red"), ["b", "a"]),
        (("--limit", "1"), ["c"]),
        (("--queue", "none"), []),
    ],
)
def test_only_what_is_asked_for(
    kinoloom: Kinoloom, store: Store, options: tuple[str, ...], found: list[str]
) -> None:
    names = {
        add(store).id: "a",
        add(store, state="held", model="wan").id: "b",
        add(store, state="failed", queue="api", prompt="a cat").id: "c",
    }
    data = json.loads(kinoloom("jobs", "list", *options, "--json").stdout)
    assert [names[job["id"]] for job in data["jobs"]] == found


def test_a_state_that_there_is_not(kinoloom: Kinoloom) -> None:
    result = kinoloom("jobs", "list", "--state", "runing")
    assert result.exit_code == 2
    assert "nearest is running" in result.stderr
    assert kinoloom("jobs", "list", "--limit", "0").exit_code == 2


def test_a_job_with_all_that_was_told_of_it(kinoloom: Kinoloom, store: Store) -> None:
    job = add(store)
    error = {"kind": "timeout", "message": "Too late.", "cause": "", "hints": ["Smaller."]}
    store.events.add(job.id, "log", {"message": "something to know"})
    store.jobs.move(job.id, "failed", expect=["queued"], error=error)
    shown = kinoloom("jobs", "show", job.id)
    assert shown.exit_code == 0
    for words in (
        "a red ball",
        "spark on local",
        "note something to know",
        "error (timeout): Too late.",
        "try: Smaller.",
        f"next: kinoloom jobs retry {job.id}",
    ):
        assert words in shown.stdout
    data = json.loads(kinoloom("jobs", "show", job.id, "--json").stdout)
    assert (data["state"], data["error"]) == ("failed", error)
    assert [event["type"] for event in data["events"]] == ["state", "log", "state"]


@pytest.mark.parametrize(
    ("wish", "state", "after"),
    [
        ("cancel", "queued", "cancelled"),
        ("cancel", "running", "cancelling"),
        ("hold", "queued", "held"),
        ("release", "held", "queued"),
        ("retry", "failed", "queued"),
        ("retry", "dead", "queued"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_can_be_wished(
    kinoloom: Kinoloom, store: Store, wish: str, state: str, after: str, as_json: bool
) -> None:
    job = add(store, state=state)
    result = kinoloom("jobs", wish, job.id, *(["--json"] if as_json else []))
    assert result.exit_code == 0
    if as_json:
        data = json.loads(result.stdout)
        assert (data["id"], data["state"]) == (job.id, after)
    else:
        assert result.stdout == f"{job.id} is {after}\n"
    changed = store.jobs.get(job.id)
    assert changed is not None
    assert changed.state == after


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_wished_says_why(
    kinoloom: Kinoloom, store: Store, wish: str, as_json: bool
) -> None:
    job = add(store, state="succeeded")
    result = kinoloom("jobs", wish, job.id, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if as_json:
        error = json.loads(result.stdout)["error"]
        assert error["kind"] == "conflict"
        assert "it is succeeded" in error["message"]
    else:
        assert "error (conflict): " in result.stderr
        assert "it is succeeded" in result.stderr


@pytest.mark.parametrize("command", ["show", *WISHES])
def test_a_job_that_there_is_not(kinoloom: Kinoloom, command: str) -> None:
    for name in ("none", "x" * 5000, "../../etc/passwd", ""):
        result = kinoloom("jobs", command, name)
        assert result.exit_code == 1
        assert "error (not_found): There is no job" in result.stderr
        assert "kinoloom jobs list" in result.stderr
        assert len(result.stderr) < 1000
    assert kinoloom("jobs", command).exit_code == 2


def test_statistics(kinoloom: Kinoloom, store: Store) -> None:
    pay(store, add(store, backend="veo").id, "0.5")
    add(store, state="failed")
    data = json.loads(kinoloom("stats", "--json").stdout)
    assert data["jobs"] == {"failed": 1, "queued": 1}
    assert data["cost"] == "0.5"
    shown = kinoloom("stats").stdout
    assert "jobs failed" in shown
    assert "0.50 USD" in shown


def test_a_database_that_cannot_be_reached_is_told(
    kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINOLOOM_DATABASE_URL", "postgresql://user:s3cret@127.0.0.1:1/k")
    result = kinoloom("jobs", "list")
    assert result.exit_code == 1
    assert "error (store_broken): " in result.stderr
    assert "s3cret" not in result.output


def uncertain(store: Store, **values: Any) -> JobRecord:
    """A job that waits since nobody knows whether a service has its order."""
    job = add(store, queue="api", backend="runway", model="gen", state="held", **values)
    calls = store.remote_calls
    call = calls.reserve(
        job.id, 0, backend="runway", model="gen", amount=Decimal("0.6"), limits=Limits()
    )
    assert calls.send(call.id)
    assert calls.doubt(call.id, {"kind": "uncertain", "message": "No answer."})
    return job


@pytest.mark.parametrize(
    ("said", "state"), [(("--remote-id", "task-7"), "accepted"), (("--not-accepted",), "new")]
)
def test_an_uncertain_order_is_resolved(
    kinoloom: Kinoloom, store: Store, said: tuple[str, ...], state: str
) -> None:
    job = uncertain(store)
    shown = kinoloom("jobs", "show", job.id).stdout
    assert "take 1, gen on runway: uncertain, 0.60 USD set aside" in shown
    ended = kinoloom("jobs", "resolve", job.id, *said)
    assert (ended.exit_code, ended.stdout.strip()) == (0, f"{job.id} is queued")
    calls = json.loads(kinoloom("jobs", "show", job.id, "--json").stdout)["calls"]
    assert [call["state"] for call in calls] == [state]
    again = kinoloom("jobs", "resolve", job.id, *said)
    assert again.exit_code == 1
    assert "conflict" in again.stderr


def test_just_one_thing_is_said_of_an_order(kinoloom: Kinoloom, store: Store) -> None:
    job = uncertain(store)
    for said in ((), ("--remote-id", "x", "--not-accepted")):
        ended = kinoloom("jobs", "resolve", job.id, *said)
        assert ended.exit_code != 0
        assert "remote_id" in ended.stderr
