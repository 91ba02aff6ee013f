"""What does a monitoring system read?"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kinoloom.server.deps import Reader
from kinoloom.server.metrics import Metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "The text format of Prometheus, or OpenMetrics when asked for.",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'kinoloom_jobs{queue="gpu",state="running"} 1.0\n',
                }
            },
        }
    },
)
def get_metrics(request: Request, key: Reader) -> Response:
    """Jobs by queue and state, how long they wait and take, seconds per denoising step, hits of the
    caches, workers, requests, and who listens to events. A key needs the scope read, as in
    `authorization: {credentials: kl_...}` of a scrape configuration."""
    metrics: Metrics = request.app.state.metrics
    body, media_type = metrics.text(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})
