"""The nodes: sockets, widgets and tooltips over the functions of `acestep_core`.

A node checks its inputs, calls one core function and wraps the result. Networks and checkpoints are imported by
`execute`, so that ComfyUI starts as fast as without this pack.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .audio import DecodeNode, EncodeAudioNode
from .codes import AudioCodesNode, LoadCodesNode, SaveCodesNode
from .comfy_runtime.versions import check_comfyui
from .compare import CompareTakesNode
from .cover import CoverNode
from .download import DownloadNode
from .empty import EmptyLatentNode
from .encode import BatchSongsNode, EncodeNode
from .files import copy_example, register_model_folder
from .finish import FinishSongNode
from .listen import ListenNode
from .loaders import LoadModelNode, LoadPlannerNode
from .lora import LoadLoraNode
from .lyrics import LyricTimesNode, PickBestNode, SaveLyricsNode
from .mix import MixStemsNode
from .morph import MorphNode
from .picture import SongPictureNode
from .plan import PlanNode
from .repaint import ExtendNode, RepaintNode
from .sample import SampleNode
from .save import SaveSongNode
from .song import EditSongNode, SongNode
from .stems import StemsNode
from .timbre import TimbreNode
from .train import SongFolderNode, TrainLoraNode
from .train_options import TrainOptionsNode
from .write import PolishNode, WriteNode

NODES: list[type[io.ComfyNode]] = [
    LoadModelNode,
    DownloadNode,
    LoadLoraNode,
    SongNode,
    EncodeNode,
    SampleNode,
    EmptyLatentNode,
    DecodeNode,
    EncodeAudioNode,
    CompareTakesNode,
    MixStemsNode,
    FinishSongNode,
    SaveSongNode,
    SongPictureNode,
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
    EditSongNode,
    LyricTimesNode,
    PickBestNode,
    SaveLyricsNode,
    SongFolderNode,
    TrainLoraNode,
    TrainOptionsNode,
]


class AceStepExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Set up the model folder and the example recording, and return our nodes.

        Raises RuntimeError if ComfyUI is too old.
        """
        check_comfyui()
        register_model_folder()
        copy_example()
        return NODES
