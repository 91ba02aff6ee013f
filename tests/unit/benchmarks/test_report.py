from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import __main__ as report

FOLDER = Path(report.__file__).parent


def test_every_benchmark_is_in_the_report() -> None:
    with_main = {f.stem for f in FOLDER.glob("*.py") if "def main(" in f.read_text("utf-8")}
    assert with_main == {*report.ORDER, "gpu", "__main__"}


def test_every_benchmark_says_what_it_answers() -> None:
    for name in report.ORDER:
        assert report.question(name).endswith("?")


def test_verdicts_come_first_and_all_that_was_printed_follows() -> None:
    said = {"repeat": "a table\ntarget 1000: 1200, met\n", "memory": "half a table\n"}
    text = report.document(said, ["memory"])
    head, *sections = text.split("\n## ")
    assert "- repeat: target 1000: 1200, met" in head
    assert len(sections) == 2
    assert "a table\ntarget 1000: 1200, met" in sections[0]
    assert "`benchmarks/memory.py` failed." in sections[1]
    assert "half a table" in sections[1]


def test_what_fails_is_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *_: str) -> tuple[str, bool]:
        return f"target of {name}\n", name != "memory"

    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "TABLES", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "run", run)
    monkeypatch.setattr(report, "has_gpu", lambda: False)
    assert report.main() == 1
    assert "These failed: memory." in capsys.readouterr().err
    assert "- memory: target of memory" in (tmp_path / "benchmarks.md").read_text("utf-8")


def test_what_is_printed_is_shown_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        started.append(command)
        return popen(["printf", "one\\ntwo\\n"], **options)

    monkeypatch.setattr(report, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
    assert report.run("repeat", "--out", "x") == ("one\ntwo\n", True)
    assert started[0][-3:] == ["benchmarks.repeat", "--out", "x"]
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_name_runs_that_one_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run(name: str, *_: str) -> tuple[str, bool]:
        ran.append(name)
        return "", True

    monkeypatch.setattr(report, "TABLES", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "run", run)
    assert report.main(["submit", "idle"]) == 0
    assert ran == ["submit", "idle"]
    assert not (tmp_path / "benchmarks.md").exists()


def test_an_unknown_name_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *_: str) -> tuple[str, bool]:
        raise AssertionError(f"{name} ran")

    monkeypatch.setattr(report, "run", run)
    with pytest.raises(SystemExit) as ended:
        report.main(["submit", "sumbit"])
    assert ended.value.code == 2
    assert "no benchmark sumbit" in capsys.readouterr().err
