"""What can go wrong, as one family: a caller catches one type, the CLI maps one table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

WEIGHTS_ONLY = "use `method` layernorm, which reads only the weights"
"""What an error about a model that does not run leaves to do."""


class SurgeonError(Exception):
    """An input or a call that surgeon cannot act on.

    The message is one line: which file or parameter, what was found, and what to do about it. It
    names parameters and settings in backticks; the command line shows its options there.
    """

    exit_code = 2


class CheckpointError(SurgeonError):
    """The weights or the configuration of a model cannot be read as they lie on disk."""


class HubUnavailableError(CheckpointError):
    """The Hub could not be asked: the network, a limit, a proxy or the token, and not the model."""


class UnknownArchitectureError(CheckpointError):
    """No row of ``surgeon.families`` describes this model."""


class SelectionError(SurgeonError):
    """The asked-for dimensions, layers or sites do not exist or do not meet the criterion."""


class OutputError(SurgeonError):
    """The artifact cannot be written where it was asked for."""


class ExportError(SurgeonError):
    """The model cannot be exported to ONNX, or the exported graph does not match the weights.

    ``remedy`` ends the message: what to do about it, if that is known where it is raised.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.remedy = remedy


class ParityError(ExportError):
    """A check of the exported graph was not met: it gives something else than PyTorch does."""

    exit_code = 1


@contextlib.contextmanager
def suggesting(alternative: str) -> Iterator[None]:
    """Add to an ``ExportError`` what else can be done: only the caller knows that."""
    try:
        yield
    except ExportError as error:
        joint = ", or " if error.remedy else "; "
        raise type(error)(f"{error}{joint}{alternative}") from error


class EvaluationError(SurgeonError):
    """The artifact, the data or the execution provider does not allow an evaluation."""


class CheckFailed(SurgeonError):  # noqa: N818  (it is a verdict, not an error of the caller's)
    """A check that was asked for, such as the expected verdict, was not met."""

    exit_code = 1


class Interrupted(SurgeonError):  # noqa: N818  (nothing is wrong)
    """Work that goes on from where it is was interrupted by Ctrl-C."""

    exit_code = 130
