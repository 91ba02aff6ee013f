"""How do a film's finished shots become its file, and what is remembered of that?

The cut says everything that decides the film's frames and sound, so its hash tells whether the very
same film was joined before. It is joined in a child process of its own, so that the worker's other
jobs go on meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from kinoloom.film.board import Storyboard
from kinoloom.film.shots import transition_frames
from kinoloom.jobs.film_shot import ShotRun
from kinoloom.jobs.job_run import JobRun, Superseded
from kinoloom.media.rates import exact_rate
from kinoloom.planner.inputs import file_digest
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.statistics import REUSED

FILM = "film"
"""The task of a film's record, beside those of clips."""


class FilmCut:
    """Joins a film, for one run of its job."""

    def __init__(self, run: JobRun, film: str, board: Storyboard, folder: Path) -> None:
        self._run = run
        self._store = run.store
        self._film = film
        self._board = board
        self._folder = folder
        self._began = time.monotonic()

    def join(self, shots: Sequence[ShotRun]) -> ClipRecord:
        """The film of finished shots: found again, or joined; the job has succeeded then.

        Raises KinoloomError and Superseded.
        """
        cut = cut_of(self._board, shots, self._store.assets.path)
        key = self._key(cut)
        for known in self._store.clips.by_plan_key(key):
            if known.asset is not None:
                self._finish(known, reused=True)
                return known
        record = self._joined(cut, key, shots)
        self._finish(record, reused=False)
        return record

    def _joined(self, cut: dict[str, Any], key: str, shots: Sequence[ShotRun]) -> ClipRecord:
        told = {"phase": "write", "step": 0, "steps": cut["frames"], "detail": "joining the shots"}
        self._run.telling.message({"type": "progress", **told})
        story = [_told(shot) for shot in shots]
        settings = {"film": self._film, "title": self._board.title, "shots": story}
        known = self._run.artefact("joined")
        if known is None or known.digest is None or known.data["key"] != key:
            target = self._folder / "film.mp4"
            arguments = {"cut": cut, "target": str(target), "settings": settings, "format": "mp4"}
            answer = self._run.call_apart("stitch", arguments)
            self._run.keep_file("joined", target, FILM, {"key": key, **answer}, link=True)
            known = self._run.artefact("joined")
            assert known is not None  # kept just now
        assert known.digest is not None
        first = shots[0].clips[0].clip
        models = sorted({made.clip.model for shot in shots for made in shot.clips})
        backends = sorted({made.clip.backend for shot in shots for made in shot.clips})
        cost, currency = spent(self._store.films.jobs_of(self._run.job.id))
        overall = [float(m.clip.scores.get("overall") or 0) for s in shots for m in s.clips]
        width, height = cut["size"]
        return ClipRecord(
            path=Path(f"{self._run.job.id}.mp4"),
            digest=known.digest,
            asset=known.digest,
            poster=first.poster,
            plan_key=key,
            task=FILM,
            model=", ".join(models)[:200],
            backend=", ".join(backends)[:40],
            seed=self._board.seed or 0,
            width=width,
            height=height,
            frames=int(known.data["frames"]),
            fps=self._board.fps,
            format="mp4",
            request={"prompt": self._board.title, "film": self._film},
            plan={
                "cut": cut,
                "film": self._film,
                "shots": story,
                "copied": known.data["copied"],
                "encoded": known.data["encoded"],
            },
            timings={"total": round(time.monotonic() - self._began, 4)},
            scores={"overall": min(overall), "notes": []},
            versions={
                "kinoloom": metadata.version("kinoloom"),
                "python": platform.python_version(),
            },
            warnings=tuple(known.data["notes"]),
            owner=self._run.job.owner,
            job_id=self._run.job.id,
            cost=cost,
            currency=currency,
        )

    def _finish(self, record: ClipRecord, *, reused: bool) -> None:
        finished = self._store.jobs.finish(
            self._run.job.id,
            run=self._run.job.run,
            worker=self._run.bench.worker,
            clip=record,
            counters={REUSED: 1} if reused else None,
            reused=reused,
            detail={"clip": record.id, "reused": reused},
        )
        if finished is None:
            raise Superseded

    def _key(self, cut: Mapping[str, Any]) -> str:
        """SHA-256 over what decides the film: every file by its content."""
        content = json.loads(json.dumps(cut))
        for part in (*content["pieces"], content["bed"] or {}):
            part.pop("clip", None)  # another clip may be of the same content
            for name in ("video", "audio", "file"):
                if part.get(name):
                    part[name] = file_digest(Path(part[name]))
        content["title"] = self._board.title
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cut_of(board: Storyboard, shots: Sequence[ShotRun], path: Any) -> dict[str, Any]:
    """The cut of finished shots as JSON-ready data; see `cut_from`. `path` finds assets.

    Each piece also says of which `shot` and `clip` it is.
    """
    pieces: list[dict[str, Any]] = []
    length = 0
    for index, shot in enumerate(shots):
        spec, at = shot.way.shot, 0
        for made, runs in zip(shot.clips, shot.way.shown(), strict=True):
            assert made.clip.asset is not None  # clips of a film are kept in the store
            for first, count in runs:
                piece: dict[str, Any] = {
                    "video": str(path(made.clip.asset)),
                    "frames": count,
                    "skip": first,
                    "clip": made.clip.id,
                    "shot": spec.id,
                    "keep_sound": board.audio.keep_shots,
                }
                if at == 0:
                    piece |= {
                        "transition": spec.transition.kind,
                        "transition_frames": transition_frames(board, index),
                        "title": spec.title or "",
                    }
                if spec.audio is not None:
                    piece |= {
                        "audio": str(spec.audio.file),
                        "gain_db": spec.audio.gain_db,
                        "audio_offset": spec.audio.offset + at / spec.fps,
                    }
                pieces.append(piece)
                at += count
        length += at - spec.overlap
    bed = board.audio.bed
    return {
        "pieces": pieces,
        "fps": str(exact_rate(board.fps)),
        "size": list(board.size or shots[0].way.size),
        "frames": length,
        "bed": None
        if bed is None
        else {"file": str(bed), "gain_db": board.audio.gain_db, "fade": board.audio.fade},
    }


def cut_from(data: Mapping[str, Any]) -> Any:
    """The `film.stitch.Cut` of `cut_of`'s data. Raises InvalidRequest."""
    from kinoloom.film.stitch import Bed, Cut, Piece

    pieces = []
    for piece in data["pieces"]:
        files = {"video": Path(piece["video"])}
        if piece.get("audio"):
            files["audio"] = Path(piece["audio"])
        of_cut = {name: piece[name] for name in piece if name not in ("clip", "shot")}
        pieces.append(Piece(**{**of_cut, **files}))
    bed = data["bed"]
    return Cut(
        pieces=tuple(pieces),
        fps=Fraction(data["fps"]),
        size=(int(data["size"][0]), int(data["size"][1])),
        bed=None if bed is None else Bed(Path(bed["file"]), bed["gain_db"], bed["fade"]),
    )


def spent(jobs: Sequence[JobRecord]) -> tuple[Decimal | None, str | None]:
    """What jobs were charged, and the currency; None and None where nothing was."""
    paid = [job for job in jobs if job.cost is not None]
    if not paid:
        return None, None
    cost = sum((job.cost for job in paid if job.cost is not None), Decimal(0))
    return cost, next((job.currency for job in paid if job.currency is not None), None)


def _told(shot: ShotRun) -> dict[str, Any]:
    """What a film's record says of a shot."""
    assert shot.take is not None  # it is finished
    return {
        "id": shot.way.shot.id,
        "take": shot.take.number,
        "seed": shot.take.seed,
        "prompt": shot.take.prompt,
        "frames": shot.way.shot.frames,
        "clips": [made.clip.id for made in shot.clips],
        "seam": shot.take.seam,
    }
