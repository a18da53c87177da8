"""The user's request: song, metadata, languages, seeds, audio codes, song files. Imports no torch."""
