"""Our own sockets, for what ComfyUI has no type for, and what every node's schema shares."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "ACE-Step 1.5"
AUTO = "auto"

TextEncoderSocket = io.Custom("ACESTEP_TEXT_ENCODER")
SongSocket = io.Custom("ACESTEP_SONG")
PlannerSocket = io.Custom("ACESTEP_PLANNER")
TaskSocket = io.Custom("ACESTEP_TASK")
