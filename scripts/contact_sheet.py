"""Save a contact sheet of a video: python scripts/contact_sheet.py VIDEO SHEET.png [CAPTION]."""

from __future__ import annotations

import sys

from kinoloom.errors import KinoloomError
from kinoloom.media.images import save_png
from kinoloom.media.pictures import contact_sheet
from kinoloom.media.reader import read_video


def main() -> None:
    """Read, lay out, save."""
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    video, sheet, *caption = sys.argv[1:]
    try:
        frames, _ = read_video(video)
        save_png(
            sheet, contact_sheet(frames, columns=5, rows=2, caption=caption[0] if caption else None)
        )
    except KinoloomError as error:
        raise SystemExit(f"{error.message} {error.cause}") from None


if __name__ == "__main__":
    main()
