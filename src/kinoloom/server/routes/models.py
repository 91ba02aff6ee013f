"""Which models are there, and what do they need of this machine?"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query

from kinoloom import models
from kinoloom.catalog.card import ModelCard
from kinoloom.jobs.planning import load_catalog
from kinoloom.request import Task
from kinoloom.server.deps import Reader, SettingsDep
from kinoloom.server.problems import problem_docs
from kinoloom.server.routes.parameters import ModelId
from kinoloom.server.schemas import (
    DetectedModel,
    DetectedModels,
    Model,
    ModelFile,
    Models,
    Requirements,
)
from kinoloom.weights import inventory
from kinoloom.weights.places import Places

router = APIRouter(prefix="/api/models", tags=["models"])

_ONE = problem_docs(404)


@router.get("", operation_id="list_models", summary="List models")
def list_models(
    key: Reader,
    settings: SettingsDep,
    task: Annotated[Task | None, Query(description="Only models that can do this.")] = None,
    family: Annotated[
        str | None,
        Query(max_length=200, description="Only models of this family.", examples=["ltx"]),
    ] = None,
) -> Models:
    """Every model that has a card, and whether it can run now, on this machine or elsewhere."""
    rows, problems = models.list_models(settings, task=task)
    items = [Model.model_validate(row) for row in rows if family in (None, row["family"])]
    return Models(items=items, problems=problems)


# Before the route with an id, which would take the word for one.
@router.get("/detected", operation_id="detect_models", summary="See which models are here")
def detect_models(key: Reader, settings: SettingsDep) -> DetectedModels:
    """The models whose weights are on this machine, whole or in part."""
    rows, _ = models.list_models(settings, backend="local")
    catalog, places = load_catalog(settings), Places.of(settings)
    found = []
    for row in rows:
        if row["state"] == "missing":
            continue
        card = catalog.get(row["id"])
        files, _, _ = inventory.files_of(card, places)
        size = sum(file.size or 0 for file in files if file.state == "found")
        found.append(DetectedModel(**row, source=_source(card), size=size))
    return DetectedModels(items=found)


@router.get("/{model}", operation_id="get_model", summary="Look at a model", responses=_ONE)
def get_model(key: Reader, settings: SettingsDep, model: ModelId) -> dict[str, Any]:
    """What a model's card says: tasks, sizes, frames, steps, speed, memory, licence."""
    card = models.show_model(model, settings)
    for place in (card["source"], *card["source"].get("parts", {}).values()):
        for name in ("path", "file", "config"):
            if place.get(name) is not None:
                place[name] = PurePath(place[name]).name  # not where it is on the server's disk
    return card


@router.get(
    "/{model}/requirements",
    operation_id="get_model_requirements",
    summary="See what a model needs",
    responses=_ONE,
)
def get_model_requirements(key: Reader, settings: SettingsDep, model: ModelId) -> Requirements:
    """The files, disk, memory and packages that a model needs and has, and what is to be done."""
    # Nobody is asked whether there is something newer: an answer must not wait for another server.
    taken = models.check_model(model, settings, ask=False)
    if isinstance(taken, models.Elsewhere):
        return _elsewhere(taken)
    enough = None
    if taken.vram_needed is not None and taken.vram_free is not None:
        enough = taken.vram_needed <= taken.vram_free
    files = [ModelFile.model_validate(vars(file)) for file in taken.files]
    return Requirements.model_validate(
        taken.as_dict()
        | {
            "found": [file for file in files if file.state == "found"],
            "missing": [file for file in files if file.state != "found"],
            "vram_enough": enough,
        }
    )


def _elsewhere(taken: models.Elsewhere) -> Requirements:
    """Of a model of another backend no file is needed here."""
    return Requirements(
        model=taken.model,
        ready=taken.ready,
        found=[],
        missing=[],
        size=0,
        disk_needed=0,
        disk_free=None,
        vram_needed=None,
        vram_all=None,
        vram_free=None,
        vram_enough=None,
        packages=[],
        licence=taken.licence,
        pinned={},
        reasons=list(taken.reasons),
        hints=list(taken.hints),
        notes=[f"runs on {taken.backend}", f"price: {taken.price}"],
    )


def _source(card: ModelCard) -> str:
    """Where a card's weights come from, without the folders of this machine."""
    source = card.source
    if source.repo is not None:
        return source.repo
    place = source.file or source.path
    return place.name if place is not None else "kinoloom"
