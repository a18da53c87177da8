"""The errors a caller can meet. Each carries one sentence: what is wrong, what was given, what is allowed."""

from __future__ import annotations


class AceStepError(Exception):
    """Base of every error this package raises on purpose."""


class RequestError(AceStepError, ValueError):
    """What was asked for cannot be done: a value out of range, an unknown name, silent audio."""


class CheckpointError(AceStepError):
    """A file or folder is not a usable ACE-Step 1.5 checkpoint."""


class NonFiniteError(AceStepError):
    """A network produced NaN or infinity. The message names the stage and the likely cause."""

    @classmethod
    def of_vae(cls, stage: str, dtype: object) -> NonFiniteError:
        """`dtype`: the VAE's, a torch.dtype. What overflows float16 has been done again in float32 by then."""
        name = str(dtype).removeprefix("torch.")
        made = "in float32 too" if name == "float16" else f"in {name}"
        advice = "load it in float32 (vae dtype)" if name == "bfloat16" else "its file may be damaged"
        return cls(f"{stage}: the VAE produced NaN or infinity {made}; {advice}")


class Cancelled(AceStepError):
    """The caller's cancel hook asked to stop."""
