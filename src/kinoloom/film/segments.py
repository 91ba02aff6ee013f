"""Of how many clips is a shot made, and which frames of each are taken?

A model makes frame counts of its own rule and of a bounded length, a film exactly what its
storyboard says. So a shot is asked for as segments that together hold at least its frames, and what
is too much is left out: at the end of the last segment; or, where its last frame must be the one
that was asked for, evenly from its middle, which plays the segment a little faster.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinoloom.catalog.card import FrameRule
from kinoloom.errors import InvalidRequest, Problem


@dataclass(frozen=True)
class Segment:
    """One clip of a shot.

    asked: frames to ask the model for.
    skip: frames at its start that the film has already from what is before it.
    trim: frames at its end that are too many.
    drop: frames in its middle that are too many, by their index among those asked for, ascending;
        only where the last frame is fixed.
    """

    asked: int
    skip: int = 0
    trim: int = 0
    drop: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """How many frames of it the film shows."""
        return self.asked - self.skip - self.trim - len(self.drop)

    @property
    def end(self) -> int:
        """The index behind the last frame that the film shows."""
        return self.asked - self.trim

    @property
    def taken(self) -> tuple[int, ...]:
        """The indices of those frames."""
        left_out = set(self.drop)
        return tuple(i for i in range(self.skip, self.end) if i not in left_out)


def segments_of(
    frames: int,
    rule: FrameRule,
    *,
    shared: int = 1,
    lead: int = 0,
    closing: int | None = None,
    fixed_end: bool = False,
) -> tuple[Segment, ...]:
    """The fewest segments that show exactly `frames` frames of a shot, made with the least excess.

    `shared` frames are the same at each join of two segments (0 or more, fewer than the model's
    longest clip), `closing` at the last join, where that is made otherwise, and no more than those
    (ValueError): a segment that is there only because its own join takes more could be left without
    a frame. `lead` are those that the first has in common with the shot before. With `fixed_end`
    the very last frame made is also the last one shown.

    As many segments as can be are of the model's longest, so that a change of a shot's length
    leaves its first segments as they are. Raises InvalidRequest when the model's longest clip is no
    longer than what it shares.
    """
    closing = shared if closing is None else closing
    if closing > shared:
        raise ValueError(f"the last join shares {closing} frames, the others only {shared}")
    overhead = max(shared, lead)
    if overhead >= rule.maximum:
        allowed = f"a model that makes more than {overhead} frames, which are those at a join"
        raise InvalidRequest([Problem("model", f"makes at most {rule.maximum} frames", allowed)])
    # n > 1 segments show n * asked - lead - (n - 2) * shared - closing frames.
    needed, count = frames + lead, 1
    if needed > rule.maximum:
        beyond = needed + closing - 2 * rule.maximum
        count = 2 + max(0, -(-beyond // (rule.maximum - shared)))
        needed += (count - 2) * shared + closing
    groups = max(0, -((count * rule.minimum - needed) // rule.multiple))
    # The first shows a frame too, of which a long lead could leave none.
    groups = max(groups, -((rule.minimum - lead - 1) // rule.multiple))
    excess = count * rule.minimum + groups * rule.multiple - needed
    longest = (rule.maximum - rule.minimum) // rule.multiple
    segments = []
    for index in range(count):
        here = min(groups, longest)
        groups -= here
        skip = lead if index == 0 else closing if index == count - 1 else shared
        segments.append(Segment(rule.minimum + here * rule.multiple, skip))
    last = segments[-1]
    if fixed_end:
        segments[-1] = Segment(last.asked, last.skip, drop=_middle(last, excess))
    else:
        segments[-1] = Segment(last.asked, last.skip, trim=excess)
    return tuple(segments)


def _middle(segment: Segment, excess: int) -> tuple[int, ...]:
    """Which frames to leave out so that the others are spread evenly up to the last one.

    They are spread from the frame before the first one shown, where there is one, else from the
    first one, which is then shown too.
    """
    kept = segment.asked - segment.skip - excess
    first = segment.skip - 1 if segment.skip else 0
    steps = kept if segment.skip else kept - 1
    span = segment.asked - 1 - first
    if steps == 0:
        shown = {segment.asked - 1}
    else:
        shown = {first + (2 * n * span + steps) // (2 * steps) for n in range(steps + 1)}
    return tuple(i for i in range(segment.skip, segment.asked) if i not in shown)
