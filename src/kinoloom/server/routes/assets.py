"""How does a file get into the store before a request names it?"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.server import schemas
from kinoloom.server.deps import SettingsDep, StoreDep, Writer
from kinoloom.server.problems import problem_docs
from kinoloom.server.uploads import read_form, receive

router = APIRouter(prefix="/api/assets", tags=["clips"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            }
        },
    }
}


async def _upload(request: Request, store: StoreDep, settings: SettingsDep) -> schemas.Asset:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "Send multipart/form-data.")
    form = await read_form(request)
    try:
        files = [item for item in form.getlist("file") if isinstance(item, UploadFile)]
        if len(files) != 1 or len(form.multi_items()) != 1:
            raise InvalidRequest([Problem("file", f"{len(form)} parts", "one file and no more")])
        asset = await run_in_threadpool(
            receive, files[0], "file", "file", store=store, settings=settings
        )
        return schemas.Asset(digest=asset.digest, size=asset.size, kind=asset.kind)
    finally:
        await form.close()


@router.post(
    "",
    operation_id="upload_asset",
    summary="Upload a picture, a video or sound",
    status_code=201,
    responses=problem_docs(415, 507),
    openapi_extra=_BODY,
)
async def upload_asset(
    key: Writer, asset: Annotated[schemas.Asset, Depends(_upload)]
) -> schemas.Asset:
    """Keep a file under its content, to be named by its digest in requests for clips and films.

    The same content sent again is the same file. What it is, is told by its first bytes.
    """
    return asset
