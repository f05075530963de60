"""Figures and animations of what was recorded; the names are those of `probe`. Needs the extra `plot`."""
