"""Which clips of a film stay as they are, before anything is rendered?

What a take notes of each of its clips tells it: what the clip was asked for (`how`), and what it
went on from (`after`). So the status and the plan of a film say what its next rendering will find,
without planning a clip or opening a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kinoloom.film.board import Storyboard
from kinoloom.film.identity import after, how, spec_of
from kinoloom.film.making import Way
from kinoloom.film.plan import There
from kinoloom.store.films import FilmRecord, FilmTake


@dataclass(frozen=True)
class Standing:
    """One shot, as the storyboard has it now.

    way, spec: how it is made, and the hash of what the storyboard says. takes: all of it, of any
    storyboard. chosen: the one that is shown; None where it is begun with the next rendering.
    made: how many of its clips, from the first, stay. others: further takes that were asked for and
    are not made.
    """

    way: Way
    spec: str
    takes: Sequence[FilmTake]
    chosen: FilmTake | None
    made: int
    others: Sequence[FilmTake]

    @property
    def done(self) -> bool:
        """Whether nothing of it is made again, and nothing is missing."""
        return self.made == len(self.way.segments) and not self.others

    def there(self, film: FilmRecord) -> There:
        """The same, for planning the film."""
        return There(
            clips=self.made,
            seed=self.chosen.seed if self.chosen is not None else None,
            prompt=self.chosen.prompt if self.chosen is not None else None,
            others=len(self.others),
            picture=self.way.shot.id in film.keyframes,
        )


def standings(
    board: Storyboard, ways: Sequence[Way], takes: Sequence[FilmTake]
) -> Sequence[Standing]:
    """Every shot of a film whose takes these are."""
    by_shot: dict[str, list[FilmTake]] = {}
    for take in takes:
        by_shot.setdefault(take.shot, []).append(take)
    found: list[Standing] = []
    for spec, way in zip(board.shots, ways, strict=True):
        before = found[-1] if found else None
        found.append(_standing(way, spec_of(board, spec, way), by_shot.get(spec.id, []), before))
    return found


def shown_take(takes: Sequence[FilmTake], spec: str) -> FilmTake | None:
    """Of a shot's takes the one that is shown, if one is of the storyboard as it is now."""
    mine = [take for take in takes if take.spec == spec]
    return next((take for take in mine if take.chosen), mine[-1] if mine else None)


def _standing(way: Way, spec: str, takes: Sequence[FilmTake], before: Standing | None) -> Standing:
    chosen = shown_take(takes, spec)
    made = 0
    if chosen is not None and _same_start(way, chosen.segments, before):
        for number, known in enumerate(chosen.segments[: len(way.segments)]):
            if known.get("how") != how(way, number):
                break
            made += 1
    others = [
        take
        for take in takes
        if take.spec == spec
        and take.reason == "retake"
        and take is not chosen
        and len(take.segments) < len(way.segments)
    ]
    return Standing(way, spec, takes, chosen, made, others)


def _same_start(way: Way, segments: Sequence[Mapping[str, Any]], before: Standing | None) -> bool:
    """Whether a take goes on from what is shown before it now."""
    if not way.goes_on or before is None:
        return True
    if before.made < len(before.way.segments) or before.chosen is None or not segments:
        return False
    last = str(before.chosen.segments[len(before.way.segments) - 1]["clip"])
    return bool(segments[0].get("after") == after(before.way, last, way))
