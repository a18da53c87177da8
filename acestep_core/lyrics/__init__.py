"""When each word of a song is sung, which lines are missing, and the file formats of timed lyrics."""
