"""Our own sockets, for what ComfyUI has no type for, and what the nodes' schemas share."""

from __future__ import annotations

from comfy_api.latest import io

# Where the node library shows them; the colours in web/js go by the last word.
LOADERS, SONG, SAMPLING, AUDIO, EDITS, PLANNER = (
    f"ACE-Step 1.5/{stage}" for stage in ("loaders", "song", "sampling", "audio", "edits", "planner")
)
AUTO = "auto"

TextEncoderSocket = io.Custom("ACESTEP_TEXT_ENCODER")
SongSocket = io.Custom("ACESTEP_SONG")
PlannerSocket = io.Custom("ACESTEP_PLANNER")
TaskSocket = io.Custom("ACESTEP_TASK")
