"""Encode a song's text: trained prompts, tokens, hidden states."""
