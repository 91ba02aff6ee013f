"""How far is one shot of a film, and what can be done for it now?

A shot has takes. The chosen one is what the film shows: when it belongs to the storyboard as it is
now, it is made, or found again; else a new one is begun. Takes that the user asked for beside it
are made too. In chaining, a take whose seam is seen is tried again with other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from kinoloom.errors import KinoloomError
from kinoloom.film.identity import after, how
from kinoloom.film.making import Way
from kinoloom.jobs.film_pictures import Pictures
from kinoloom.jobs.film_segments import ChildFailed, Children, Ending, Segment
from kinoloom.jobs.job_run import JobRun
from kinoloom.request_checks import MAX_SEED
from kinoloom.store.films import FilmTake

SEAM_RETAKES = 2
"""How often a shot is taken again because its seam is seen."""
_STEP = 7919
"""Between the seeds of takes that nobody gave one: a prime, far from the segments' own steps."""


class ShotRun:
    """One shot, for one run of its film's job."""

    unknown_price = False
    chained = False
    after: ShotRun | None = None
    keyframes: dict[str, str]
    """The clips of the pictures made for the film, by shot; all its shots have the same one."""

    def __init__(
        self,
        run: JobRun,
        film: str,
        way: Way,
        spec: str,
        children: Children,
        pictures: Pictures,
        before: ShotRun | None,
    ) -> None:
        """`spec` is the hash of what the storyboard says, `before` the shot before this one."""
        self.way = way
        self.done = False
        self.failed: ChildFailed | None = None
        self.clips: Sequence[Segment] = ()
        self.take: FilmTake | None = None
        self._run = run
        self._store = run.store
        self._film = film
        self._spec = spec
        self._children = children
        self._pictures = pictures
        self._before = before
        self._others: list[FilmTake] | None = None
        self._opening: Segment | None = None
        self._there = 0
        self._waits = False
        # Whether what it begins with will not come.
        self._blocked = False
        # Its takes as they are since this run changed them: nobody else does meanwhile.
        self._changed: dict[int, FilmTake] = {}
        self._picture: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more can be done for it."""
        return self.done or self.failed is not None or self._blocked

    @property
    def working(self) -> bool:
        """Whether a clip of it is being made."""
        return self._waits and not self.over

    @property
    def lacks(self) -> int:
        """How many of its clips are not made yet."""
        return 0 if self.over else len(self.way.segments) - self._there

    @property
    def anchor(self) -> str | None:
        """The picture whose colours hold from this shot on, as soon as it is known."""
        first = self
        while first.way.start in ("before", "none") and first._before is not None:
            first = first._before
        if first.way.start == "given" and first.way.shot.start is not None:
            return self._pictures.given(first.way.shot.start)
        return None if first._opening is None else self._pictures.first(first._opening.clip)

    def go_on(self) -> None:
        """Do what can be done now; never waits for a clip. The shot before went on already."""
        before = self._before
        if self.way.goes_on and before is not None:
            self._blocked = before.failed is not None or before._blocked
        if self.over:
            return
        try:
            self._take_on()
        except ChildFailed as error:
            self.failed = error
        except KinoloomError as error:  # no budget is left for its clip, a picture is broken, ...
            self._run.check()
            self.failed = ChildFailed(error)

    # --- takes ------------------------------------------------------------------------------

    def _take_on(self) -> None:
        take = self.take = self.take or self._chosen()
        self._make_others(take)
        clips = self._made(take)
        if clips is None:
            return
        take = self.take
        self.clips = clips
        if self.chained and self.way.goes_on and self._judged_again(take, clips):
            self.clips = ()
            return
        self.done = not self._others

    def _chosen(self) -> FilmTake:
        """The take that the film shows, if it is one of the shot as the storyboard has it now."""
        takes = self._store.films.takes(self._film, self.way.shot.id)
        mine = [take for take in takes if take.spec == self._spec]
        for take in mine:
            if take.chosen:
                return take
        shot = self.way.shot
        if mine:  # the storyboard is again what it was
            return self._store.films.choose(self._film, shot.id, mine[-1].number)
        return self._store.films.add_take(
            self._film,
            shot.id,
            spec=self._spec,
            seed=shot.seed if shot.seed is not None else shot.index,
            prompt=shot.prompt,
            chosen=True,
        )

    def _make_others(self, chosen: FilmTake) -> None:
        """Make the takes that the user asked for beside the chosen one."""
        if self._others is None:
            takes = self._store.films.takes(self._film, self.way.shot.id)
            self._others = [
                take
                for take in takes
                if take.spec == self._spec
                and take.reason == "retake"
                and take.number != chosen.number
                and len(take.segments) < len(self.way.segments)
            ]
        left = []
        for take in self._others:
            try:
                if self._made(take) is None:
                    left.append(take)
            except ChildFailed as error:
                text = f"{self.way.shot.id}: take {take.number} failed: {error.error.message}"
                self._run.telling.log(text)
        self._others = left

    def _made(self, take: FilmTake) -> list[Segment] | None:
        """The clips of a take; None while some are missing. Raises ChildFailed."""
        way = self.way
        start, end = self._start(), self._end()
        if (way.start != "none" and start is None) or (way.end != "none" and end is None):
            return None
        take = self._changed.get(take.number, take)
        if take.upstream != (start or "") and self.chained:
            take = self._update(take, upstream=start or "", segments=[], seam=None)
        found: list[Segment] = []
        for number in range(len(way.segments)):
            begin = start if number == 0 else self._handed(found[-1], number - 1)
            request = way.request(
                number,
                seed=take.seed,
                prompt=take.prompt,
                start=self._pictures.path(begin) if begin is not None else None,
                end=self._pictures.path(end) if end is not None else None,
                unknown_price=self.unknown_price,
            )
            known = take.segments[number] if number < len(take.segments) else None
            made = self._children.segment(
                self._name(f"{take.number}:{number}"),
                request,
                ending=self._ending(number),
                known=known,
            )
            if made is None:
                self._waits = True
                if found:
                    self._noted(take, found)
                return None
            found.append(made)
            if self.take is not None and take.number == self.take.number:
                self._opening, self._there = found[0], len(found)
        take = self._noted(take, found)
        if self.take is not None and take.number == self.take.number:
            self.take = take
        return found

    def _noted(self, take: FilmTake, found: Sequence[Segment]) -> FilmTake:
        """Write down what a take is made of, as far as it is."""
        segments = [
            {
                "key": made.key,
                "clip": made.clip.id,
                "asked": part.asked,
                "how": how(self.way, number),
            }
            for number, (made, part) in enumerate(zip(found, self.way.segments, strict=False))
        ]
        before = self._before
        if self.way.goes_on and before is not None:
            segments[0]["after"] = after(before.way, before.clips[-1].clip.id, self.way)
        if [dict(s) for s in take.segments[: len(found)]] == segments:
            return take
        worst = min(found, key=lambda made: float(made.clip.scores.get("overall") or 0))
        costs = [made.clip.cost for made in found if made.clip.cost is not None]
        return self._update(
            take,
            segments=segments,
            scores=dict(worst.clip.scores),
            cost=sum(costs, Decimal(0)) if costs else None,
            currency=next((m.clip.currency for m in found if m.clip.currency), None),
        )

    def _update(self, take: FilmTake, **changes: Any) -> FilmTake:
        changed = self._store.films.update_take(self._film, take.shot, take.number, **changes)
        self._changed[take.number] = changed
        return changed

    # --- pictures ---------------------------------------------------------------------------

    def _start(self) -> str | None:
        """The picture that the shot begins with, when it is there. Raises ChildFailed."""
        way = self.way
        if way.start == "given" and way.shot.start is not None:
            return self._pictures.given(way.shot.start)
        if way.start == "made":
            return self.keyframe()
        if way.start == "before" and self._before is not None and self._before.done:
            return self._before.handed_on()
        return None

    def _end(self) -> str | None:
        """The picture that it ends with, when it is there. Raises ChildFailed."""
        if self.way.end == "given" and self.way.shot.end is not None:
            return self._pictures.given(self.way.shot.end)
        if self.way.end == "made" and self.after is not None:
            return self.after.keyframe()
        return None

    def keyframe(self) -> str | None:
        """The picture made for the shot's beginning, when it is there. Raises ChildFailed.

        It is made once: a shot's new words leave it, and with it the shot before, as they are.
        """
        if self._picture is not None:
            return self._picture
        shot = self.way.shot
        known = self.keyframes.get(shot.id)
        clip = self._store.clips.get(known) if known is not None else None
        if clip is not None and clip.poster is not None and self._fits(clip.width, clip.height):
            self._picture = clip.poster
            return self._picture
        request = self.way.still(
            seed=shot.seed if shot.seed is not None else shot.index,
            prompt=shot.prompt,
            unknown_price=self.unknown_price,
        )
        made = self._children.segment(self._name("keyframe"), request)
        if made is None:
            return None
        self._store.films.keep_keyframe(self._film, shot.id, made.clip.id)
        self.keyframes[shot.id] = made.clip.id
        self._picture = made.clip.poster
        return self._picture

    def _fits(self, width: int, height: int) -> bool:
        return abs(width / height - self.way.size[0] / self.way.size[1]) < 0.01

    def handed_on(self) -> str | None:
        """The frames that the next shot begins with."""
        return self._handed(self.clips[-1], len(self.way.segments) - 1)

    def _handed(self, made: Segment, number: int) -> str | None:
        """The last frames that the film shows of a segment, for the next one to begin with.

        None where that begins with nothing.
        """
        frames = self._wanted(number)
        if frames == 0:
            return None
        shown = self.way.segments[number].end
        last = self._pictures.boundary(made.clip, shown, frames)
        anchor = self.anchor if self.chained else None
        if anchor is None:
            return last
        return self._pictures.matched(last, anchor, video=frames > 1)

    def _wanted(self, number: int) -> int:
        """How many of a segment's last frames the next one begins with."""
        if number + 1 < len(self.way.segments):
            return self.way.context(number + 1)
        after = self.after.way if self.chained and self.after is not None else None
        return after.context(0) if after is not None and after.goes_on else 0

    def _ending(self, number: int) -> Ending | None:
        """What must be kept of a segment's clip, if a chain may go on from it."""
        needed = self._wanted(number)
        if not needed and not self.chained:
            return None
        kept = max(needed, self.way.kept(number))
        return Ending(self.way.segments[number].end, needed, kept)

    # --- seams ------------------------------------------------------------------------------

    def _judged_again(self, take: FilmTake, clips: Sequence[Segment]) -> bool:
        """Score the seam of a take; whether another take is tried for it, or was better."""
        if take.seam is None:
            take = self.take = self._update(take, seam=self._seam(clips))
        from kinoloom.quality.seam import RETAKE_BELOW  # it decodes nothing, but brings OpenCV

        wanted = take.pinned or take.reason == "retake"  # by the user, who has seen it or will
        if take.seam is None or take.seam >= RETAKE_BELOW or wanted:
            return False
        takes = self._store.films.takes(self._film, self.way.shot.id)
        mine = [t for t in takes if t.spec == self._spec and t.upstream == take.upstream]
        tried = [t for t in mine if t.reason == "seam"]
        if len(tried) < SEAM_RETAKES:
            seed = (take.seed + _STEP) % (MAX_SEED + 1)
            self._run.telling.log(
                f"{self.way.shot.id}: the seam is seen (score {take.seam:.2f}); another take is"
                f" made with seed {seed}"
            )
            self.take = self._store.films.add_take(
                self._film,
                self.way.shot.id,
                spec=self._spec,
                seed=seed,
                prompt=take.prompt,
                reason="seam",
                chosen=True,
            )
            return True
        best = max(mine, key=lambda t: -1.0 if t.seam is None else t.seam)
        if best.number == take.number:
            return False
        self.take = self._store.films.choose(self._film, self.way.shot.id, best.number)
        return True

    def _seam(self, clips: Sequence[Segment]) -> float:
        before = self._before
        assert before is not None  # the shot goes on from it
        last = before.way.segments[-1]
        return self._pictures.seam(
            before.clips[-1].clip,
            last.end,
            clips[0].clip,
            self.way.segments[0].skip,
        )

    # --- the rest ---------------------------------------------------------------------------

    def _name(self, what: str) -> str:
        return f"{self.way.shot.id}\n{what}"
