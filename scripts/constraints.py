"""Which exact version of every package does Kinoloom's continuous integration run with?

Resolves everything that ``pip install -e '.[all,dev]'`` would bring (and what building the package
needs), and writes it to ``constraints.txt`` without installing anything. Run it with Python 3.11 on
Linux, since that is where the pins are tested: ``make constraints``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"  # the newest one that has a small CPU build
HEADER = """\
# Every version that `pip install -e '.[all,dev]'` resolves to on Python 3.11, Linux.
# Written by scripts/constraints.py; change pyproject.toml and run `make constraints` instead.
#
# torch is pinned to the newest version that has a small CPU build. The plain version matches both
# that build (2.13.0+cpu) and the one with CUDA from PyPI. torchvision is left out on purpose.
"""
UNWANTED = re.compile(r"torchvision|nvidia-.*|cuda-.*|triton")


def requirements(pyproject: dict[str, Any]) -> list[str]:
    """Every requirement of the package, its extras and its build, the package itself left out."""
    project = pyproject["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [line for group in groups for line in group if not line.startswith("kinoloom[")]
    # An editable install asks hatchling for `editables` too.
    return sorted({*found, *pyproject["build-system"]["requires"], "editables"})


def resolve(wanted: list[str]) -> dict[str, str]:
    """Name and version of each package that pip would install for ``wanted``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pins = Path(folder, "pins.txt")
        pins.write_text(f"torch=={TORCH}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), "-c", str(pins), *wanted]
        subprocess.run(command, check=True, cwd=folder)
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = (item["metadata"] for item in items)
    # "+cpu" and the like name a build of a version; the pin is the version.
    return {
        re.sub(r"[-_.]+", "-", data["name"]).lower(): data["version"].partition("+")[0]
        for data in found
    }


def main() -> int:
    """Write ``constraints.txt``; 1 when the resolution holds a package that must not be there."""
    if sys.version_info[:2] != (3, 11):
        print("constraints are resolved on Python 3.11: run `make constraints PYTHON=python3.11`")
        return 1
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    versions = resolve(requirements(pyproject))
    unwanted = sorted(name for name in versions if UNWANTED.fullmatch(name))
    if unwanted:
        print(f"not written, since torch did not resolve to its CPU build: {', '.join(unwanted)}")
        print("Give pip an index that has it, for example")
        print("  set PIP_EXTRA_INDEX_URL to the CPU index of the PyTorch installation page")
        return 1
    lines = [f"{name}=={version}" for name, version in sorted(versions.items())]
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(lines)} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
