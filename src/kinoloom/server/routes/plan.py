"""What would run for a request, and why, without running it?"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from kinoloom.planner.plan import Plan
from kinoloom.server.bodies import Fields
from kinoloom.server.clip_document import CLIP_BODY
from kinoloom.server.clip_request import read_clip_request
from kinoloom.server.deps import Reader, Service, SettingsDep, StoreDep
from kinoloom.server.problems import problem_docs
from kinoloom.server.schemas import without_places

router = APIRouter(prefix="/api/plan", tags=["clips"])


@router.post(
    "",
    operation_id="plan_clip",
    summary="Analyse a request without generating",
    response_model=Plan,
    responses=problem_docs(404, 409, 415, 502, 503, 504, 507),
    openapi_extra=CLIP_BODY,
)
def plan_clip(
    key: Reader, service: Service, store: StoreDep, settings: SettingsDep, fields: Fields
) -> JSONResponse:
    """Everything that would run: model, size, frames, steps, seed, the prompt's complexity, the
    estimated seconds, where the weights would be, and each change that was made, with its reason.

    The body is that of `create_clip`. Nothing is generated; a request with mistakes is answered
    with every one of them.
    """
    asked = read_clip_request(fields, store, settings)
    plan = service.plan(asked.request)
    return JSONResponse(without_places(plan.model_dump(mode="json")))
