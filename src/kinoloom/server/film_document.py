"""How is the body that holds a storyboard described in the OpenAPI document?

It is read by `film.storyboard`, which lists every mistake at once and more kindly than a validator
of schemas; so its schema is made here, from the fields of a storyboard, and cannot miss one.
"""

from __future__ import annotations

from typing import Any, get_args

from kinoloom import request_checks as check
from kinoloom.film import fields
from kinoloom.film.board import (
    MAX_SHOTS,
    Character,
    FilmAudio,
    Mode,
    OnFailure,
    ShotAudio,
    ShotDefaults,
    ShotSpec,
    Storyboard,
    TransitionKind,
)
from kinoloom.request import Tier
from kinoloom.server.clip_document import or_null
from kinoloom.server.schemas import DIGEST

EXAMPLE: dict[str, Any] = {
    "title": "A ball and a star",
    "mode": "chaining",
    "model": "spark",
    "fps": 12,
    "seed": 7,
    "defaults": {"duration": 2},
    "shots": [
        {"id": "ball", "prompt": "a red ball rolls to the right across a white floor"},
        {
            "prompt": "a blue star rises over a green field",
            "transition": {"kind": "crossfade", "duration": 0.5},
        },
    ],
}

_DIGEST_ONLY = {"type": "string", "pattern": DIGEST}
_FILE: dict[str, Any] = {
    "description": "An uploaded file, see `POST /api/assets`.",
    "anyOf": [
        {
            "type": "object",
            "properties": {"asset": _DIGEST_ONLY},
            "required": ["asset"],
            "additionalProperties": False,
        },
        _DIGEST_ONLY,
    ],
}
_NAME = {"type": "string", "minLength": 1, "maxLength": 200}


def _number(low: float, high: float, words: str) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high, "description": words}


def _whole(low: int, high: int, words: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "description": words}


def _text(most: int, words: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": most, "description": words}


def _words(of: Any, words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(get_args(of)), "description": words}


_SECONDS = check.MAX_DURATION
_KIND = _words(TransitionKind, "`crossfade` shares its frames; `fade` goes through black.")
_TRANSITION = {
    "description": "How a shot follows the one before it.",
    "anyOf": [
        _KIND,
        {
            "type": "object",
            "properties": {
                "kind": _KIND,
                "duration": or_null(_number(0, fields.MAX_TRANSITION, "Seconds; none for a cut.")),
            },
            "required": ["kind"],
            "additionalProperties": False,
        },
    ],
}
_GAIN = _number(fields.MIN_GAIN, fields.MAX_GAIN, "Louder or softer, in decibels.")
_FIELDS: dict[str, dict[str, Any]] = {
    "id": {
        "type": "string",
        "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        "description": "Its name in the film; without one, `shot-001` and so on.",
    },
    "title": _text(fields.MAX_TITLE, "Of the film, or of the chapter that a shot begins."),
    "prompt": _text(check.MAX_PROMPT, "What is seen."),
    "mode": _words(Mode, "How shots are joined: one after the other, or between pictures."),
    "model": _NAME | {"description": "The id of a model; without it the planner chooses."},
    "keyframe_model": _NAME | {"description": "Makes the pictures that shots share."},
    "backend": _NAME | {"description": "What runs the model; without it the planner chooses."},
    "size": {
        "description": 'Width and height in pixels: a pair, "512x320", or a name such as "720p".',
        "anyOf": [
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            {"type": "string", "maxLength": 40},
        ],
    },
    "fps": _number(check.MIN_FPS, check.MAX_FPS, "Frames a second of the film."),
    "seed": _whole(0, check.MAX_SEED, "Same seed, same frames; the film's counts up by shot."),
    "budget": {
        "description": "The most that the film may cost, as an amount such as 2.50.",
        "anyOf": [{"type": "string", "maxLength": 40}, {"type": "number", "minimum": 0}],
    },
    "duration": _number(check.MIN_DURATION, _SECONDS, "Seconds; not together with `frames`."),
    "frames": _whole(1, check.MAX_FRAMES, "The length in frames."),
    "negative": {"type": "string", "description": "What should not be seen."},
    "steps": _whole(0, check.MAX_STEPS, "Denoising steps; 0 fits them to the prompt."),
    "guidance": _number(0, check.MAX_GUIDANCE, "How strongly the prompt is followed."),
    "tier": _words(Tier, "How much work to spend."),
    "candidates": _whole(1, check.MAX_CANDIDATES, "Takes of each shot; the best is kept."),
    "on_failure": _words(
        OnFailure,
        "When a shot cannot be made: the film waits for its user, another backend makes the shot,"
        " or the film has failed.",
    ),
    "transition": _TRANSITION,
    "start": _FILE,
    "end": _FILE,
    "keyframe": _FILE,
    "file": _FILE,
    "bed": _FILE,
    "references": {
        "description": "Pictures of who or what is seen, a list or a single one.",
        "anyOf": [
            {"type": "array", "items": _FILE, "minItems": 1, "maxItems": check.MAX_REFERENCES},
            *_FILE["anyOf"],
        ],
    },
    "description": _text(fields.MAX_DESCRIPTION, "Goes before the prompt."),
    "trigger": _text(fields.MAX_TITLE, "A LoRA's word, before the description."),
    "gain_db": _GAIN,
    "offset": _number(0, _SECONDS, "Seconds into the file."),
    "fade": _number(0, fields.MAX_FADE, "Seconds, at the beginning and at the end."),
    "keep_shots": {"type": "boolean", "description": "Whether the shots' sound is heard too."},
}


def _part(model: Any, required: tuple[str, ...] = (), **own: dict[str, Any]) -> dict[str, Any]:
    """The schema of a part of a storyboard, with the fields that it has and no others.

    What is not required may be null: an empty line of a storyboard counts as none.
    """
    known = _FIELDS | own
    return {
        "type": "object",
        "properties": {
            name: known[name] if name in required else or_null(known[name])
            for name in model.model_fields
        },
        "additionalProperties": False,
    } | ({"required": list(required)} if required else {})


_CAST = {
    "description": "The names of characters, a list or a single one.",
    "anyOf": [{"type": "array", "items": _NAME, "maxItems": fields.MAX_CHARACTERS}, _NAME],
}
_DEFAULTS = _part(ShotDefaults, characters=_CAST)
_AUDIO = {"anyOf": [_part(ShotAudio, ("file",)), _DIGEST_ONLY]}
_SHOT = _part(ShotSpec, ("prompt",), characters=_CAST, audio=_AUDIO)
_STORYBOARD = _part(
    Storyboard,
    ("shots",),
    defaults=_DEFAULTS | {"description": "What holds for every shot that does not say it."},
    characters={
        "type": "object",
        "description": "Who appears in several shots, by name.",
        "additionalProperties": or_null(_part(Character)),
        "maxProperties": fields.MAX_CHARACTERS,
    },
    audio=_part(FilmAudio) | {"description": "Sound under the whole film."},
    shots={"type": "array", "items": _SHOT, "minItems": 1, "maxItems": MAX_SHOTS},
)

STORYBOARD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"title": "Storyboard"} | _STORYBOARD,
                "examples": {"film": {"summary": "Two shots", "value": EXAMPLE}},
            }
        },
    }
}
"""What a route that takes a storyboard adds to its operation."""
