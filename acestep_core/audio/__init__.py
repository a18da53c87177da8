"""Reading, writing, resampling and levels: the only place that knows file formats."""

from .audio_files import check_writable, read_audio, read_settings, write_audio
from .level import anti_clip, check_waveform, is_finite, is_silent, normalize_peak, to_stereo, unheard_channels
from .resample import resample

__all__ = [
    "anti_clip",
    "check_waveform",
    "check_writable",
    "is_finite",
    "is_silent",
    "normalize_peak",
    "read_audio",
    "read_settings",
    "resample",
    "to_stereo",
    "unheard_channels",
    "write_audio",
]
