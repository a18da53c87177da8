"""The errors a caller can meet. Each carries one sentence: what is wrong, what was given, what is allowed."""


class AceStepError(Exception):
    """Base of every error this package raises on purpose."""


class RequestError(AceStepError, ValueError):
    """What was asked for cannot be done: a value out of range, an unknown name, silent audio."""


class CheckpointError(AceStepError):
    """A file or folder is not a usable ACE-Step 1.5 checkpoint."""


class NonFiniteError(AceStepError):
    """A network produced NaN or infinity. The message names the stage and the likely cause."""


class Cancelled(AceStepError):
    """The caller's cancel hook asked to stop."""
