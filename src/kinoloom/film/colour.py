"""How far have a film's colours drifted from its anchor frame, and how are they brought back?

A chained segment starts from the frame that the last one ended with, so every small shift of colour
is passed on and the next one comes on top. `match_colour` takes the shift out of the boundary frame
before the next segment starts from it; what the picture shows may have changed meanwhile and must
stay as it is. The anchor and the frame are therefore not compared as wholes, as colour transfer
does (Reinhard et al. 2001, "Color Transfer between Images"), which would tint the grass because a
red ball rolled in. The frame's colours are registered to the anchor's palette instead:

1. The anchor's palette: its few clearly distinct colours c, with mean m_c and spread s_c in CIE
   Lab, and the share A_c of the picture that each covers.
2. Each pixel x of the frame belongs to the colours with the weights r_c(x) of a Gaussian mixture,
   times 1 / (1 + exp((d^2 - R^2) / 2)), where d is its distance in spreads to the likeliest colour:
   what is farther than R from all of them is new in the picture and has no vote. So does robust
   point set registration (Myronenko and Song 2010, "Coherent Point Drift", arXiv:0905.2635).
3. With mu_c, the mean of the pixels that belong to colour c, each channel's gain g and shift t are
   those that minimise  sum_c w_c (g mu_c + t - m_c)^2 + w_p (g - 1)^2.  How large an area a colour
   covers plays no part in mu_c, only in how much it is trusted. Steps 2 and 3 repeat.
4. The share of it that is carried out follows from the intersection of both palettes (Swain and
   Ballard 1991, "Color Indexing"), sum_c min(A_c, F_c), with the frame's shares F_c: none below
   0.3, where another place is shown, all from 0.6 on. And from its size, as a redescending
   estimator would: a join drifts by a few units of Lab, so nothing of a move by 1.5 `MAX_MOVE`
   is believed to be drift (night after day), all of one by `MAX_MOVE`.

Gains stay within 0.8 to 1.25, and no pixel is moved by more than `MAX_MOVE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.media.frames import Frame, checked_frame, checked_frames

MIN_GAIN, MAX_GAIN = 0.8, 1.25
"""What one join may need at most; beyond it something else than drift is being matched."""

MAX_MOVE = 8.0
"""CIE Lab distance by which no pixel is moved farther; a segment drifts by 1 to 5. Rounding, and
what no screen can show, come on top."""

_Floats = npt.NDArray[np.float32]

_SIDE = 64
"""Pixels: enough for the colours of a picture, and noise is averaged out."""

_COLOURS = 8
_DISTINCT = 18.0
"""Lab distance below which two clusters are one colour. The halves of one textured area must not
count as two: a drift would only move pixels from one to the other, and their means would stay."""

_REACH = 5.0
"""Lab distance added to each spread: what a join may shift a colour by, and it is still found."""

_OUTLIER = 3.0
"""Spreads from which on a pixel belongs to no colour: 1 of 100 of a three-dimensional Gaussian."""

_STEADY = 30.0
"""Weight of a gain of 1, in Lab units squared: two colours 30 apart outweigh it ten times."""

_ROUNDS = 12
_SETTLED = 1e-3
"""A change of a gain by this, times a colour's 100, is a tenth of what can be seen."""

_SMALL_SHARE = 0.02
"""A colour on less of the picture has no vote: its mean is mostly its edges."""

_SAME_PLACE = (0.3, 0.6)
_NO_DRIFT = (1.5 * MAX_MOVE, MAX_MOVE)
_TINY = 1e-6


def match_colour(frame: Frame, anchor: Frame, strength: float = 1.0) -> Frame:
    """The uint8 RGB frame [H, W, 3] with the colours of the anchor [any H, any W, 3].

    `strength` from 0 (unchanged) to 1 scales the correction. A frame that has drifted comes back;
    one that shows something else is left nearly as it is; equal pictures stay equal to the bit.
    Raises InvalidMedia when either is no frame, InvalidRequest when `strength` is out of range.
    """
    return match_colours([frame], anchor, strength)[0]


def match_colours(frames: Sequence[Frame], anchor: Frame, strength: float = 1.0) -> list[Frame]:
    """The overlap frames, oldest first, with one correction for all: the one the last one needs.

    Each with its own would flicker, and the next segment would go on flickering. Raises as
    `match_colour` does, and InvalidMedia when there are no frames or they differ in size.
    """
    if not 0 <= strength <= 1:
        raise InvalidRequest([Problem("strength", strength, "a number from 0 to 1")])
    checked = list(checked_frames(frames))
    anchor = checked_frame(anchor, "The anchor frame")
    gain, shift, share = _registered(_pixels(checked[-1]), _palette(_pixels(anchor)))
    share *= strength
    return [_moved(frame, gain, shift, share) for frame in checked] if share else checked


def _moved(frame: Frame, gain: _Floats, shift: _Floats, share: float) -> Frame:
    lab = _lab(frame)
    move = (lab * (gain - 1) + shift) * np.float32(share)
    length = np.linalg.norm(move, axis=2, keepdims=True)
    move *= np.minimum(1, MAX_MOVE / np.maximum(length, _TINY))
    # Only the difference is added: a way to Lab and back would round what has not changed.
    change = _rgb(lab + move) - _rgb(lab)
    return np.clip(np.rint(frame + 255 * change), 0, 255).astype(np.uint8)


def drift(frames: Iterable[Frame] | Frame, anchor: Frame) -> float:
    """How far the colours of the frames [H, W, 3] are from the anchor's, in CIE Lab units.

    The distance between the means of each colour that they share with the anchor's palette, the
    root mean square over the colours by their area; as far as they share none, the distance between
    the means of the whole pictures. The frames' means are those over time, so a flicker is none;
    nor is an object that comes or goes. About 1 is just visible. Raises InvalidMedia when there are
    no frames.
    """
    palette = _palette(_pixels(checked_frame(anchor, "The anchor frame")))
    belong: _Floats = np.zeros(len(palette.shares), np.float32)
    sums: _Floats = np.zeros_like(palette.means)
    whole: _Floats = np.zeros(3, np.float32)
    count = 0
    for frame in checked_frames(frames):
        pixels = _pixels(frame)
        shares, means = _moments(pixels, _belonging(pixels, palette.centres, palette.spreads))
        belong += shares
        sums += shares[:, None] * means
        whole += pixels.mean(axis=0)
        count += 1
    means = np.asarray(sums / np.maximum(belong, _TINY)[:, None], np.float32)
    belong /= count
    weights = _weights(belong, palette)
    of_all = float(np.linalg.norm(whole / count - palette.overall))
    if not weights.any():
        return of_all
    of_shared = float(np.sqrt(weights @ _squared(means - palette.means)))
    trust = _ramp(_overlap(belong, palette), *_SAME_PLACE)
    return trust * of_shared + (1 - trust) * of_all


@dataclass(frozen=True)
class _Palette:
    """The distinct colours of a picture: where they are, `centres` and `spreads` [n, 3], and what
    belongs to them, `shares` [n] of its pixels with the `means` [n, 3]; and the mean of all, [3].
    """

    centres: _Floats
    spreads: _Floats
    shares: _Floats
    means: _Floats
    overall: _Floats


def _registered(pixels: _Floats, palette: _Palette) -> tuple[_Floats, _Floats, float]:
    """Gain and shift [3] that bring the pixels to the palette, and how far to trust them, 0..1."""

    def found() -> tuple[_Floats, _Floats]:
        moved = pixels * gain + shift
        return _moments(pixels, _belonging(moved, palette.centres, palette.spreads))

    gain, shift = np.ones(3, np.float32), np.zeros(3, np.float32)
    shares, means = found()
    for _ in range(_ROUNDS):
        weights = _weights(shares, palette)
        if not weights.any():
            return gain, shift, 0.0
        before = gain, shift
        gain, shift = _fitted(means, palette.means, weights)
        shares, means = found()
        if np.allclose(before, (gain, shift), rtol=0, atol=_SETTLED):
            break
    weights = _weights(shares, palette)
    moves = _squared(means * (gain - 1) + shift)
    trust = _ramp(_overlap(shares, palette), *_SAME_PLACE)
    return gain, shift, trust * _ramp(float(np.sqrt(weights @ moves)), *_NO_DRIFT)


def _weights(shares: _Floats, palette: _Palette) -> _Floats:
    """How much each colour's mean says; the sum is 1, or 0 when no colour is shared."""
    weights = np.minimum(shares, palette.shares)
    weights[weights < _SMALL_SHARE] = 0
    return np.asarray(weights / max(float(weights.sum()), _TINY), dtype=np.float32)


def _overlap(shares: _Floats, palette: _Palette) -> float:
    """The intersection of two palettes, 0..1."""
    return float(np.minimum(shares, palette.shares).sum())


def _fitted(found: _Floats, wanted: _Floats, weights: _Floats) -> tuple[_Floats, _Floats]:
    """Step 3 in closed form, with weights [n] that add up to 1."""
    at, to = weights @ found, weights @ wanted
    apart, asked = found - at, wanted - to
    gain = (weights @ (apart * asked) + _STEADY) / (weights @ (apart * apart) + _STEADY)
    gain = np.clip(gain, MIN_GAIN, MAX_GAIN).astype(np.float32)
    return gain, np.asarray(to - gain * at, dtype=np.float32)


def _palette(pixels: _Floats) -> _Palette:
    labels = _clusters(pixels)
    groups = [pixels[labels == label] for label in np.unique(labels)]
    centres = np.stack([group.mean(axis=0) for group in groups])
    spreads = np.stack([np.hypot(group.std(axis=0), _REACH) for group in groups])
    # Means as the frame's are taken: soft borders shift them, and both must shift alike.
    shares, means = _moments(pixels, _belonging(pixels, centres, spreads))
    return _Palette(centres, spreads, shares, means, pixels.mean(axis=0))


def _clusters(pixels: _Floats) -> npt.NDArray[np.int64]:
    """The number of the distinct colour of each pixel: k-means, then what is close is merged."""
    # The farthest pixel is the next centre: the same every time, and no small colour is missed.
    centres = [pixels.mean(axis=0)]
    for _ in range(_COLOURS - 1):
        gaps = np.min([_squared(pixels - centre) for centre in centres], axis=0)
        if gaps.max() < _DISTINCT**2:
            break
        centres.append(pixels[gaps.argmax()])
    means = np.stack(centres)
    labels = _nearest(pixels, means)
    for _ in range(_ROUNDS):
        means = np.stack([_mean(pixels[labels == i], mean) for i, mean in enumerate(means)])
        labels = _nearest(pixels, means)
    merged = np.arange(len(means))
    for first in range(len(means)):
        for second in range(first + 1, len(means)):
            if _squared(means[first] - means[second]) < _DISTINCT**2:
                merged[merged == merged[second]] = merged[first]
    return np.asarray(merged[labels], dtype=np.int64)


def _nearest(pixels: _Floats, means: _Floats) -> npt.NDArray[np.int64]:
    return np.asarray(np.argmin([_squared(pixels - mean) for mean in means], axis=0), np.int64)


def _belonging(pixels: _Floats, centres: _Floats, spreads: _Floats) -> _Floats:
    """How far each pixel belongs to each colour, [pixels, colours]; the sum is less than 1 for
    a pixel that is none of them."""
    scaled = (pixels[:, None] - centres) / spreads
    distance = _squared(scaled)
    likely = -distance / 2 - np.log(spreads).sum(axis=1)
    odds = np.exp(likely - likely.max(axis=1, keepdims=True))
    nearest = np.minimum(distance.min(axis=1), 100)  # exp must not overflow
    known = 1 / (1 + np.exp((nearest - _OUTLIER**2) / 2))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True) * known[:, None], dtype=np.float32)


def _moments(pixels: _Floats, belonging: _Floats) -> tuple[_Floats, _Floats]:
    """The share of the picture and the mean colour of what belongs to each colour."""
    total = belonging.sum(axis=0)
    means = belonging.T @ pixels / np.maximum(total, _TINY)[:, None]
    return np.asarray(total / len(pixels), np.float32), np.asarray(means, np.float32)


def _ramp(value: float, none: float, full: float) -> float:
    """0 at `none`, 1 at `full`, straight between."""
    return min(1.0, max(0.0, (value - none) / (full - none)))


def _mean(pixels: _Floats, otherwise: _Floats) -> _Floats:
    return np.asarray(pixels.mean(axis=0), np.float32) if len(pixels) else otherwise


def _squared(vectors: _Floats) -> _Floats:
    return np.asarray(np.square(vectors).sum(axis=-1), dtype=np.float32)


def _pixels(frame: Frame) -> _Floats:
    """The Lab colours of a small version of the frame: [n, 3]."""
    return _lab(_small(frame)).reshape(-1, 3)


def _small(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _lab(frame: Frame) -> _Floats:
    """CIE Lab of D65, L 0..100, of uint8 sRGB."""
    return np.asarray(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _rgb(lab: _Floats) -> _Floats:
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.float32)
