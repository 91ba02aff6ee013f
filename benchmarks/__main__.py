"""What do all benchmarks say about this machine? `python -m benchmarks` writes it down.

Each one runs in a process of its own; what it prints is shown as it comes and collected in
``docs/benchmarks.md``. `python -m benchmarks NAME...` runs those alone, and writes nothing down but
with ``--write``, which leaves the others there as they were.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.effort import QUICK
from benchmarks.machine import machine_line

ORDER = (
    "overhead",
    "embeddings",
    "step_cache",
    "repeat",
    "memory",
    "startup",
    "scoring",
    "encoding",
    "seams",
    "films",
    "stitching",
    "serving",
    "submit",
    "events",
    "listing",
    "idle",
    "recovery",
    "durable",
)
ROOT = Path(__file__).parents[1]
TABLES = ROOT / "docs" / "benchmarks.md"
GPU_TABLES = ROOT / "docs" / "benchmarks-gpu.md"


def question(name: str) -> str:
    """What a benchmark answers: the first line of its module."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or name).splitlines()[0]


def run(name: str, *arguments: str) -> tuple[str, bool]:
    """What a benchmark printed, shown meanwhile, and whether it came to its end."""
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}", *arguments]
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # it was asked for
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), process.returncode == 0


def has_gpu() -> bool:
    """Whether the benchmark of real sizes can run here."""
    import torch

    return torch.cuda.is_available()


def main(arguments: Sequence[str] = ()) -> int:
    """Run all and write the tables, or only run those that are named; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ORDER)}")
    parser.add_argument(
        "--write", action="store_true", help="put those that are named into the tables"
    )
    asked = parser.parse_args(arguments)
    names = asked.names
    if unknown := sorted(set(names) - set(ORDER)):
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    said: dict[str, str] = {}
    failed = []
    for number, name in enumerate(names or ORDER, 1):
        print(f"\n{number} of {len(names or ORDER)}, {name}: {question(name)}", flush=True)
        begin = time.perf_counter()
        said[name], well = run(name)
        print(f"({time.perf_counter() - begin:.0f} s)", flush=True)
        if not well:
            failed.append(name)
    if not names and has_gpu():
        print(f"\n{question('gpu')}", flush=True)
        _, well = run("gpu", "--out", str(GPU_TABLES))
        if not well:
            failed.append("gpu")
    if asked.write or not names:
        said = {name: text for name, text in (written() | said).items() if name in ORDER}
        TABLES.write_text(document(said, failed), encoding="utf-8")
        print(f"\nWritten to {TABLES.relative_to(ROOT)}.")
    if failed:
        sys.stderr.write(f"These failed: {', '.join(failed)}.\n")
    return 1 if failed else 0


def written() -> dict[str, str]:
    """What the tables have of each benchmark, in its order."""
    text = TABLES.read_text(encoding="utf-8") if TABLES.exists() else ""
    names = {question(name): name for name in ORDER}
    found = {
        names[section[1]]: section[2] + "\n"
        for section in re.finditer(r"^## ([^\n]+)\n\n```text\n(.*?)\n```$", text, re.M | re.S)
        if section[1] in names
    }
    return {name: found.get(name, "") for name in ORDER}


def document(said: dict[str, str], failed: list[str]) -> str:
    """All that was printed, as Markdown: the verdicts first, then a section for each."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; every ratio is taken within one run. What is measured stands in",
        "`benchmarks/`.",
        "",
        machine_line(),
        "",
    ]
    if QUICK:
        lines += ["**Only a trial: with few repeats, these figures say little.**", ""]
    for name, text in said.items():
        lines += [f"- {name}: {line}" for line in text.splitlines() if line.startswith("target ")]
    if GPU_TABLES.exists():
        lines += ["- models of real size on a GPU: [benchmarks-gpu.md](benchmarks-gpu.md)"]
    else:
        lines += ["- models of real size on a GPU: not run yet, `python -m benchmarks.gpu`"]
    for name, text in said.items():
        if not text and name not in failed:  # never run, as all are not that nobody named
            continue
        lines += ["", f"## {question(name)}", ""]
        if name in failed:
            lines += [f"`benchmarks/{name}.py` failed.", ""]
        lines += ["```text", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
