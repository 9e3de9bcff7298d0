"""The version of the science, apart from everything that imports it."""

SCIENCE_VERSION = 4
"""Part of every trial's identity. Raise it when a change alters numbers, and say so in CHANGELOG.md."""
