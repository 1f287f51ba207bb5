"""What the Hub and the network answer, in one line that says what to do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

from surgeon.errors import CheckpointError


def endpoint() -> str:
    """Return the Hub's address: ``HF_ENDPOINT`` as it is now, or the default."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


@contextlib.contextmanager
def explained(
    model_id: str, revision: str | None = None, *, to_write: bool = False
) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line: what was found, and what to do about it.

    Inside, huggingface_hub itself prints nothing. ``to_write`` is for an upload, whose repository
    need not be there.

    Raises:
        CheckpointError: instead of every error of the network, the Hub or its cache.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        with _quiet():
            yield
    except (
        httpx2.HTTPError,
        httpx2.InvalidURL,
        errors.EntryNotFoundError,
        errors.RevisionResolutionError,
        errors.XetDownloadError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        text = _explain(error, model_id, revision, to_write=to_write)
        raise CheckpointError(f"{model_id}: {' '.join(text.split())}") from error


def is_outage(error: BaseException) -> bool:
    """Whether the network or the Hub failed, and not the request."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RevisionResolutionError,
    )

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (OfflineModeIsEnabled, RevisionResolutionError, httpx2.TransportError))


def _explain(error: BaseException, model_id: str, revision: str | None, *, to_write: bool) -> str:
    import httpx2
    from huggingface_hub import constants, errors

    hub = endpoint()
    log_in = "set HF_TOKEN or run hf auth login"
    not_found = (
        f"no such file or directory here, and no such model on {hub}, or a private one; check the "
        f"name, and for a private one {log_in}"
    )
    if to_write:
        not_found = f"{hub} does not let you write there; {log_in}, with a token that may write"
    match error:
        case errors.GatedRepoError():
            return f"gated; accept its terms at {hub}/{model_id}, then {log_in}"
        case errors.RepositoryNotFoundError():
            return not_found
        case errors.DisabledRepoError():
            return f"disabled on {hub}; take another model"
        case errors.RevisionNotFoundError():
            return (
                f"no revision {revision!r} on {hub}; give a branch, a tag or a commit that "
                f"{hub}/{model_id}/commits/main lists"
            )
        case errors.RemoteEntryNotFoundError():
            return f"a file that {hub} lists is not there ({error.response.url}); try again"
        case errors.HfHubHTTPError():
            return _explain_status(error, not_found, log_in)
        case errors.OfflineModeIsEnabled():
            return (
                f"no such file or directory here, not in the cache ({constants.HF_HUB_CACHE}), and "
                "HF_HUB_OFFLINE is set; unset it to reach the Hub"
            )
        case httpx2.HTTPError() | httpx2.InvalidURL():
            reason = str(error) or type(error).__name__
            return (
                f"no such file or directory here, and {hub} cannot be reached ({reason}); check "
                "the connection and HF_ENDPOINT"
            )
        case _ if isinstance(error.__cause__, (httpx2.HTTPError, errors.OfflineModeIsEnabled)):
            return _explain(error.__cause__, model_id, revision, to_write=to_write)
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
        case _:
            return str(error)


def _explain_status(error: Any, not_found: str, log_in: str) -> str:
    status, told = error.response.status_code, error.server_message or "it does not say why"
    match status:
        case 401 if "Invalid credentials" in told:
            return f"{endpoint()} does not know the token; {log_in} anew, or unset HF_TOKEN"
        case 401:  # also what a missing or private model looks like to a stranger
            return not_found
        case 403:
            return f"{endpoint()} forbids it ({told}); take a token that has the right"
        case 429:
            return f"{endpoint()} has had too many requests from here; wait, or {log_in}"
        case _ if status >= 500:
            return f"{endpoint()} is out of order (status {status}); try again later"
        case _:
            return f"{endpoint()} refuses (status {status}: {told})"


@contextlib.contextmanager
def answers_like_the_hub(model_id: str) -> Iterator[None]:
    """Catch what huggingface_hub stumbles over when the server is something else."""
    try:
        yield
    except (AssertionError, AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{model_id}: {endpoint()} does not answer like the Hub; check HF_ENDPOINT"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's bars and warnings off standard error, which is surgeon's."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    level = get_verbosity()
    if level == logging.WARNING:  # its default; any other was asked for
        set_verbosity(logging.ERROR)
    asked_for = constants.HF_HUB_DISABLE_PROGRESS_BARS is False
    try:
        with contextlib.nullcontext() if asked_for else disable_progress_bars():
            yield
    finally:
        set_verbosity(level)
