"""From a Song to what the condition encoder reads: trained strings, tokens, text states."""
