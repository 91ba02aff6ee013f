"""Runway: clips made by its own models and those that it passes on."""
