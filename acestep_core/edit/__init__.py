"""Edits of an existing song: tasks, source, regions, morph settings."""
