"""The planner, ACE-Step 1.5's 5 Hz LM: prompts, grammar, decoding, scoring, and the functions that use them."""
