"""The language model that plans songs: prompts, constrained and fast decoding, the five functions, scoring."""
