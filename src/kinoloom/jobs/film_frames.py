"""How are the frames of a film read, matched, judged and joined? In a child process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from kinoloom.film.colour import match_colour, match_colours
from kinoloom.film.sheet import Row, contact_sheet
from kinoloom.film.stitch import stitch
from kinoloom.film.timeline import write_timeline
from kinoloom.jobs.film_cut import cut_from
from kinoloom.media.images import load_image, save_png
from kinoloom.media.lossless import save_lossless
from kinoloom.media.reader import probe, read_frames
from kinoloom.quality.seam import WINDOW, seam_score


def write_matched(frames: Path, anchor: Path, target: Path, *, video: bool) -> None:
    """Write a picture, or a video as a whole, with the colours of another picture.

    Raises InvalidMedia and OutputFailed.
    """
    colours = load_image(anchor)
    if video:
        matched = match_colours(list(read_frames(frames)), colours)
        save_lossless(target, matched, probe(frames).fps)
    else:
        save_png(target, match_colour(load_image(frames), colours))


def score_seam(before: Path, shown: int, after: Path, skip: int) -> dict[str, Any]:
    """Score the join of two videos: the first `shown` frames of one, the other after `skip`."""
    first = max(0, shown - WINDOW)
    ending = list(islice(read_frames(before), first, shown))
    beginning = list(islice(read_frames(after), skip, skip + WINDOW))
    return seam_score(ending, beginning).as_dict()


def stitch_film(
    arguments: Mapping[str, Any], check: Callable[[], None], on_frame: Callable[[int], None]
) -> dict[str, Any]:
    """Join the film of `arguments["cut"]`, and what became of it as JSON-ready data."""
    made = stitch(
        cut_from(arguments["cut"]),
        Path(arguments["target"]),
        format=arguments["format"],
        settings=arguments["settings"],
        on_frame=on_frame,
        check=check,
    )
    return {
        "frames": made.frames,
        "seconds": made.seconds,
        "copied": made.copied,
        "encoded": made.encoded,
        "notes": list(made.notes),
    }


def film_timeline(arguments: Mapping[str, Any]) -> None:
    """Write the timeline of a cut. Raises InvalidMedia and OutputFailed."""
    told = {shot["id"]: shot for shot in arguments["shots"]}
    write_timeline(
        cut_from(arguments["cut"]),
        Path(arguments["target"]),
        title=arguments["title"],
        about=[told.get(piece["shot"], {}) for piece in arguments["cut"]["pieces"]],
    )


def film_sheet(arguments: Mapping[str, Any]) -> None:
    """Write the sheet of a film, a row for each shot. Raises InvalidMedia and OutputFailed."""
    cut = cut_from(arguments["cut"])
    rows: list[Row] = []
    for piece, start, end in zip(
        arguments["cut"]["pieces"],
        cut.starts,
        (cut.end(n) for n in range(len(cut.pieces))),
        strict=True,
    ):
        if rows and rows[-1].name == piece["shot"]:
            rows[-1] = Row(piece["shot"], rows[-1].first, end - rows[-1].first)
        else:
            rows.append(Row(piece["shot"], start, end - start))
    contact_sheet(Path(arguments["film"]), Path(arguments["target"]), rows)
