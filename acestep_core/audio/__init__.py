"""Read, write, resample and level audio. No other package knows audio file formats."""

from .audio_files import check_audio_path, read_audio, read_settings, write_audio
from .level import anti_clip, check_waveform, dropped_channels, is_finite, normalize_peak, to_stereo
from .resample import resample

__all__ = [
    "anti_clip",
    "check_waveform",
    "check_audio_path",
    "is_finite",
    "normalize_peak",
    "read_audio",
    "read_settings",
    "resample",
    "to_stereo",
    "dropped_channels",
    "write_audio",
]
