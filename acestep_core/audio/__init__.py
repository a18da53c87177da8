"""Read, write, resample, measure and finish audio. No other package knows audio file formats."""

from .audio_files import (
    check_audio_path,
    holds_rate,
    read_audio,
    read_settings,
    read_tags,
    sample_rate_of,
    write_audio,
)
from .finish import Finish, FinishedSong, finish_songs
from .level import anti_clip, check_waveform, dropped_channels, is_finite, normalize_peak, to_stereo
from .loudness import Loudness, measure_loudness
from .measured import MeasuredMusic, MusicFilter, measure_music
from .resample import resample
from .tags import Tags

__all__ = [
    "Finish",
    "FinishedSong",
    "Loudness",
    "MeasuredMusic",
    "MusicFilter",
    "Tags",
    "anti_clip",
    "check_waveform",
    "check_audio_path",
    "finish_songs",
    "holds_rate",
    "is_finite",
    "measure_loudness",
    "measure_music",
    "normalize_peak",
    "read_audio",
    "read_settings",
    "read_tags",
    "resample",
    "sample_rate_of",
    "to_stereo",
    "dropped_channels",
    "write_audio",
]
