"""Which parameters do several routes share, and what bounds them?

Nothing that a client sends reaches the database unbounded, and never with a NUL, which PostgreSQL
refuses.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

MAX_PAGE = 200
_ID = r"^[0-9A-Za-z_-]{1,64}$"
SHOT_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_NAME = r"^[^\x00-\x1f\x7f]{1,200}$"

JobId = Annotated[
    str,
    Path(
        alias="job",
        description="The id of a job.",
        pattern=_ID,
        examples=["019aa4a6-2f7c-7d3e-8a51-6c1f0e5b9d21"],
    ),
]
ClipId = Annotated[
    str,
    Path(
        alias="clip",
        description="The id of a clip.",
        pattern=_ID,
        examples=["019aa4a6-3b10-7e44-9c0d-2f4f7a1b8e33"],
    ),
]
FilmId = Annotated[
    str,
    Path(
        alias="film",
        description="The id of a film.",
        pattern=_ID,
        examples=["019aa4a6-4c21-7f55-8d1e-7a6b5c4d3e2f"],
    ),
]
ShotId = Annotated[
    str,
    Path(
        alias="shot",
        description="The id of a shot in its film.",
        pattern=SHOT_ID,
        examples=["shot-001"],
    ),
]
ModelId = Annotated[
    str,
    Path(alias="model", description="The id of a model.", pattern=_NAME, examples=["spark"]),
]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most items of a page.")]
Cursor = Annotated[
    str | None,
    Query(pattern=_ID, description="`next` of the page before; without it, the newest."),
]
Search = Annotated[
    str,
    Query(
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="Words of the prompt, all of which must be in it, in any case and order.",
    ),
]
ByModel = Annotated[str | None, Query(pattern=_NAME, description="Only of this model.")]
ByBackend = Annotated[str | None, Query(pattern=_NAME, description="Only of this backend.")]
ByQueue = Annotated[str | None, Query(pattern=_NAME, description="Only in this queue.")]
