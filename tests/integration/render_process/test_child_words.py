"""What may come out of a child besides answers, and what is told of it?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from children import Start, posix, size_of
from kinoloom.errors import MissingPackage, WorkerUnavailable
from kinoloom.jobs.messages import MAX_LINE

ALIVE = """echo '{"type":"alive"}'"""


def as_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Have a shell script started in place of Python."""
    script = tmp_path / "child.sh"
    script.write_text("\n".join(("#!/bin/sh", *lines)))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_what_libraries_print_does_not_end_up_between_the_answers(
    start: Start, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "os.write(1, b'hello\\n')\n"
        "def chatter():\n"
        "    while True:\n"
        "        os.write(1, b'chatter chatter\\n')\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=chatter, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start()
    for _ in range(20):
        assert size_of(process, picture) == (64, 48)


@posix
@pytest.mark.parametrize(
    "line",
    [
        "echo nonsense",
        "echo '[1]'",
        """echo '{"type":"result","number":0,"result":3}'""",
        """echo '{"type":"result","number":0}'""",
        """echo '{"type":"error","number":0,"error":{"kind":"invalid_params","problems":[1]}}'""",
        """echo '{"type":"error","number":0,"error":7}'""",
        f"head -c {2 * MAX_LINE} /dev/zero | tr '\\0' x",
    ],
)
def test_nonsense_ends_the_call_and_the_child(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    as_child(tmp_path, monkeypatch, ALIVE, line, "sleep 60")
    process = start()
    with pytest.raises(WorkerUnavailable, match="nonsense"):
        process.call("probe", {})
    assert process.pid is None


@posix
def test_the_last_words_are_told_without_secrets(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic import SecretStr

    monkeypatch.setenv("SOME_API_KEY", "key-0123456789")
    as_child(
        tmp_path,
        monkeypatch,
        ALIVE,
        "seq 1 1000 >&2",
        "echo sent key-0123456789 to postgresql://me:s3same-open@db/clips >&2",
        "printf '\\r 50%%\\r 100%% s3same-open' >&2",
        "exit 7",
    )
    url = SecretStr("postgresql://me:s3same-open@db/clips")
    with pytest.raises(WorkerUnavailable) as died:
        start(database_url=url).call("probe", {})
    assert died.value.cause == (
        "It ended with code 7. Its last words:\n998\n999\n1000\nsent *** to ***\n 100% ***"
    )


@posix
def test_a_light_child_knows_no_secrets_of_the_environment(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "key-0123456789")
    monkeypatch.setenv("SOME_PLACE", "a-place")
    seen = tmp_path / "seen"
    as_child(tmp_path, monkeypatch, f"env > {seen}", "exit 0")
    for light, key in ((True, False), (False, True)):
        with pytest.raises(WorkerUnavailable):
            start(light=light).call("probe", {})
        found = seen.read_text()
        assert ("key-0123456789" in found) == key
        assert "SOME_PLACE=a-place" in found
        assert "OMP_WAIT_POLICY=PASSIVE" in found
        assert "OMP_NUM_THREADS=1" in found


def test_a_child_that_lacks_a_package_says_so(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pydantic.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pydantic'\")"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingPackage, match="cannot start") as missing:
        start().call("probe", {})
    assert "pydantic" in missing.value.cause


def test_a_child_that_cannot_be_started_is_told(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(WorkerUnavailable, match="cannot be started") as failed:
        start().start()
    assert failed.value.cause == "No such file or directory"
