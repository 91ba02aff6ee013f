"""How do finished pieces become one film, exact to the frame and the sample?

    cut      which frames of which files follow each other, with which transitions and sounds
    source   what is known of a file without decoding it: its frames' times, where it may be cut
    picture  the film's frames one by one, from decoded sources
    spans    which frames are copied as they are, and which must be encoded
    encode   those that must be, once, into parts of the same kind as the copied ones
    sound    the sound of one file, sample by sample
    mix      the sound of the film, never drifting from its frames, never clipping
    join     copied and encoded packets and the mixed sound in one file
    export   the whole of it, for each format

Everything streams: what is in memory does not grow with the film but for a few bytes a frame, and
no more than two sources of pictures and two of sound are open at a time, the bed aside.
"""

from kinoloom.film.stitch.cut import Bed, Cut, Piece, TransitionKind
from kinoloom.film.stitch.export import FilmFormat, Stitched, stitch

__all__ = ["Bed", "Cut", "FilmFormat", "Piece", "Stitched", "TransitionKind", "stitch"]
