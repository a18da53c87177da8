"""Edits of an existing song: tasks, source, regions, masks, morphs. Times are seconds from the start."""
