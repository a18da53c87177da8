"""Plug-ins that make the networks faster on CPUs. The networks never import them."""
