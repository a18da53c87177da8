"""ACE-Step 1.5 for ComfyUI. Importing this file loads nothing else."""

WEB_DIRECTORY = "./web"  # help pages by node id, and the page's scripts


async def comfy_entrypoint():
    """Return the extension that lists our nodes. ComfyUI calls this once."""
    from .nodes import AceStepExtension

    return AceStepExtension()
