"""The nodes: sockets, widgets and tooltips over the functions of `acestep_core`.

What only running a node needs (networks, checkpoints, ComfyUI's model management) is imported by its `execute`, so that
ComfyUI starts as fast as without this pack.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .audio import DecodeNode, EncodeAudioNode
from .empty import EmptyLatentNode
from .encode import EncodeNode
from .files import register_model_folder
from .load import LoadModelNode
from .sample import SampleNode
from .song import SongNode

NODES: list[type[io.ComfyNode]] = [
    LoadModelNode,
    SongNode,
    EncodeNode,
    SampleNode,
    EmptyLatentNode,
    DecodeNode,
    EncodeAudioNode,
]


class AceStepExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folder()
        return NODES
