"""Checks that need ComfyUI's objects in their hands. They run in a process of their own, see `run.py`."""
