"""The nodes: sockets, widgets and tooltips over the functions of `acestep_core`.

What only running a node needs (networks, checkpoints, ComfyUI's model management) is imported by its `execute`, so that
ComfyUI starts as fast as without this pack.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .audio import DecodeNode, EncodeAudioNode
from .batch import BatchSongsNode
from .codes import AudioCodesNode, LoadCodesNode, SaveCodesNode
from .comfy_runtime.versions import check_comfyui
from .cover import CoverNode
from .empty import EmptyLatentNode
from .encode import EncodeNode
from .files import register_model_folder
from .listen import ListenNode
from .load import LoadModelNode
from .load_planner import LoadPlannerNode
from .morph import MorphNode
from .plan import PlanNode
from .repaint import ExtendNode, RepaintNode
from .sample import SampleNode
from .show import ShowSongNode
from .song import SongNode
from .stems import StemsNode
from .timbre import TimbreNode
from .write import PolishNode, WriteNode

NODES: list[type[io.ComfyNode]] = [
    LoadModelNode,
    SongNode,
    EncodeNode,
    SampleNode,
    EmptyLatentNode,
    DecodeNode,
    EncodeAudioNode,
    CoverNode,
    RepaintNode,
    ExtendNode,
    StemsNode,
    TimbreNode,
    MorphNode,
    BatchSongsNode,
    AudioCodesNode,
    SaveCodesNode,
    LoadCodesNode,
    LoadPlannerNode,
    PlanNode,
    WriteNode,
    PolishNode,
    ListenNode,
    ShowSongNode,
]


class AceStepExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        check_comfyui()
        register_model_folder()
        return NODES
