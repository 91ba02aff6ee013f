"""How does a plan become a finished, recorded clip? See `clip.make_clip`."""
