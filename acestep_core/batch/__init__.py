"""Many songs: lists, the manifest, and the flow of songs through workers. The caller's maker makes each song."""
