"""Where are a model's weights?"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from kinoloom.catalog.section import REPO, Section


class Part(Section):
    """Something that a model takes from elsewhere: a folder of a repository, or one file in it.

    Exactly one of `repo` and `path`; `subfolder` and `file` lie within it.
    """

    repo: str | None = Field(default=None, pattern=REPO)
    path: Path | None = None
    revision: str | None = Field(default=None, min_length=1)
    subfolder: str = ""
    file: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.repo is None) == (self.path is None):
            raise ValueError("needs either repo or path")
        if self.revision is not None and self.repo is None:
            raise ValueError("a revision belongs to a repo")
        for name in (self.subfolder, self.file or ""):
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError("subfolder and file must lie within the repository")
        return self


class Source(Section):
    """Where the weights are: exactly one of `package`, `path`, `repo`, `file` and `service`.

    `package` is a folder inside the kinoloom package; `path` is a folder of the user's, relative
    to the card's own; `repo` is a Hugging Face repository, at `revision` where one is pinned;
    `file` is one safetensors file of the user's, whose `config` is a folder in diffusers' layout
    that says how it is built; `service` is the name that a model elsewhere has there. `parts` are
    components that do not come from there, by the name they have in the pipeline.
    """

    package: str | None = Field(default=None, min_length=1)
    path: Path | None = None
    repo: str | None = Field(default=None, pattern=REPO)
    file: Path | None = None
    service: str | None = Field(default=None, min_length=1, max_length=300)
    revision: str | None = Field(default=None, min_length=1)
    config: Path | None = None
    parts: dict[str, Part] = {}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = ("package", "path", "repo", "file", "service")
        given = [n for n in places if getattr(self, n) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(
                f"needs exactly one of package, path, repo, file and service; found {found}"
            )
        if self.revision is not None and self.repo is None:
            raise ValueError("a revision belongs to a repo")
        if self.config is not None and self.file is None:
            raise ValueError("a config folder belongs to a file")
        if self.package is not None and (
            self.package.startswith("/") or ".." in self.package.split("/")
        ):
            raise ValueError("package must be a folder inside the kinoloom package")
        return self

    @property
    def folder(self) -> Path | None:
        """The local folder of the weights, which need not exist; None for a repository or file."""
        if self.package is not None:
            return _own_folder() / self.package
        return self.path


@cache
def _own_folder() -> Path:
    """Where Kinoloom itself lies."""
    return Path(str(resources.files("kinoloom")))
