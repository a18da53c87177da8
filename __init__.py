"""ACE-Step 1.5 for ComfyUI: this file is the door ComfyUI knocks on. Importing it loads nothing else."""

WEB_DIRECTORY = "./web"  # a help page for each node id, and what the nodes look like


async def comfy_entrypoint():
    """Called by ComfyUI once; returns the extension that lists our nodes."""
    from .nodes import AceStepExtension

    return AceStepExtension()
