"""What the user asks for: song, metadata, languages, seeds, audio codes, song files. Imports no torch."""
