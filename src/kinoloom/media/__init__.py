"""How do frames become files, and files become frames again?

`writer` makes videos, `reader` reads them, `images` handles stills, `sequence` keeps frames without
loss, `settings` reads back how a video was made, `pictures` makes posters and contact sheets.
Frames are always numpy uint8 RGB: one frame is [H, W, 3], a clip [T, H, W, 3].
"""
