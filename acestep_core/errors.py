"""The exceptions of this package. A message names the input, the problem, the given value and the allowed ones."""

from __future__ import annotations

import re
import reprlib


class AceStepError(Exception):
    """Base class of every error that this package raises."""

    __module__ = "acestep"  # ComfyUI shows the module with the name, and our module lies in its folder of packs

    def __init_subclass__(cls) -> None:
        cls.__module__ = "acestep"


class RequestError(AceStepError, ValueError):
    """An invalid request: a value out of range, an unknown name, silent audio."""


class CheckpointError(AceStepError):
    """A file or folder that is not a usable ACE-Step 1.5 checkpoint."""


class NonFiniteError(AceStepError):
    """NaN or infinity in the output of a network or in an adapted weight, with the stage and the likely cause."""

    @classmethod
    def of_vae(cls, stage: str, dtype: object) -> NonFiniteError:
        """Return the error for a VAE of this torch.dtype. In float16 the VAE has already retried in float32."""
        name = str(dtype).removeprefix("torch.")
        where = "in float32 too" if name == "float16" else f"in {name}"
        advice = "load it in float32 (vae dtype)" if name == "bfloat16" else "its file may be damaged"
        return cls(f"{stage}: the VAE produced NaN or infinity {where}; {advice}")


class Cancelled(AceStepError):
    """The caller cancelled the run through `Callbacks.cancelled`."""


MAX_MESSAGE = 2000  # characters
# Terminals obey all control characters but tab and newline, and the overrides of writing direction.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: object) -> str:
    """Return the repr of a value from a file on one line: a long or deeply nested one is shortened."""
    return _REPR.repr(value)


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, shortened. torch and safetensors append lines of C++ and Rust."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else f"{line[:200]}…"


def printable(text: str) -> str:
    """Escape the characters that a terminal obeys, as in JSON. JSON stays the same value."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def shortened(message: str) -> str:
    """Return a message of at most MAX_MESSAGE characters: values of a file may be long."""
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
