"""Everything that talks to ComfyUI's model management, samplers and data formats. Import from the modules directly:
`versions` is light and serves the schemas, the others load ComfyUI's networks.
"""
