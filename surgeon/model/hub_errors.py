"""What the Hub and the network answer, in one line that says what to do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import sleep, time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import getproxies

from surgeon.errors import CheckpointError, HubUnavailableError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


_LOG_IN = "set HF_TOKEN or run hf auth login"
# The host that hf_xet names in an error, which is a RuntimeError whatever it was.
_XET_HOST = re.compile(r"https?://[^/\s)\"']+")


def endpoint() -> str:
    """Return the Hub's address: ``HF_ENDPOINT`` as it is now, or the default."""
    from huggingface_hub import constants

    set_to = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT  # where it is set to nothing, ""
    return (set_to or "https://huggingface.co").rstrip("/")


@contextlib.contextmanager
def explained(
    model_id: str, revision: str | None = None, *, to_write: bool = False
) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line: what was found, and what to do about it.

    Inside, huggingface_hub itself prints nothing. ``to_write`` is for an upload.

    Raises:
        HubUnavailableError: the network, the Hub or the token failed, and not the model.
        CheckpointError: instead of every other error of the Hub or its cache.
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
        ImportError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        cause = _cause(error)
        text = _explain(cause, model_id, revision, to_write=to_write)
        unavailable = is_outage(cause) or _is_token_refused(cause)
        kind = HubUnavailableError if unavailable else CheckpointError
        raise kind(f"{model_id}: {' '.join(text.split())}") from error


def is_outage(error: BaseException) -> bool:
    """Whether the network or the Hub failed, and not the request."""
    import httpx2
    from huggingface_hub import errors

    error = _cause(error)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        by_hub = "X-Error-Message" in error.response.headers
        return may_pass(error) or status == 408 or (status in (403, 407) and not by_hub)
    if isinstance(error, (RuntimeError, errors.XetDownloadError)):
        return _XET_HOST.search(str(error)) is not None
    return isinstance(
        error,
        (
            errors.OfflineModeIsEnabled,
            errors.RevisionResolutionError,
            httpx2.TransportError,
            httpx2.InvalidURL,
            ImportError,
        ),
    )


def may_pass(error: HfHubHTTPError) -> bool:
    """Whether an answer, of a rate limit or a server error, may be another one later."""
    return error.response.status_code == 429 or error.response.status_code >= 500


def _cause(error: BaseException) -> BaseException:
    """Return the error of the network that huggingface_hub wrapped, or the error itself."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled)):
            return inner
        inner = inner.__cause__
    return error


def _explain(error: BaseException, model_id: str, revision: str | None, *, to_write: bool) -> str:
    import httpx2
    from huggingface_hub import constants, errors

    hub = endpoint()
    not_here = "" if to_write else "no such file or directory here, and "
    not_found = (
        f"{hub} does not let you write there; {_LOG_IN}, with a token that may write"
        if to_write
        else f"{not_here}no such model on {hub}, or a private one; check the name, and for a "
        f"private one {_LOG_IN}"
    )
    match error:
        case errors.GatedRepoError():
            return f"gated; accept its terms at {hub}/{model_id}, then {_LOG_IN}"
        case errors.HfHubHTTPError() if _is_token_refused(error):
            reason = error.server_message or "status 401"
            return (
                f"{hub} does not accept the token ({reason}); run hf auth login again, set another "
                "HF_TOKEN, or unset it"
            )
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
            return _explain_status(error, not_found)
        case errors.OfflineModeIsEnabled():
            cached = "" if to_write else f"not in the cache ({constants.HF_HUB_CACHE}): "
            return f"{not_here}{cached}HF_HUB_OFFLINE is set; unset it to reach the Hub"
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return _explain_network(error, not_here)
        case ImportError() if "SOCKS" in str(error):
            return (
                "the proxy settings (ALL_PROXY, HTTPS_PROXY) name a SOCKS proxy, which takes a "
                "package; pip install socksio, or unset them"
            )
        case RuntimeError() | errors.XetDownloadError() if host := _XET_HOST.search(str(error)):
            before = re.sub(r"(, domain: | for url \()$", "", str(error).partition("http")[0])
            return (
                f"{host[0]}, where the Hub keeps the content of files (Xet), cannot be reached or "
                f"refuses ({before.rpartition(': ')[2]}); allow that host in the firewall or "
                "proxy, or set HF_HUB_DISABLE_XET=1 to download in another way"
            )
        case UnicodeEncodeError(encoding="ascii"):  # a header takes no other characters
            return "the token has a character that no token has; run hf auth login or set HF_TOKEN"
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
        case _:
            return str(error)


def _explain_network(error: Any, not_here: str) -> str:
    import httpx2

    reason = str(error) or type(error).__name__
    hub = endpoint()
    if isinstance(error, httpx2.ProxyError):
        return f"the proxy refuses ({reason}); check HTTPS_PROXY, and that it allows {hub}"
    try:
        url = error.request.url
    except (AttributeError, RuntimeError):  # an invalid address was never asked
        url = hub
    if (host := _origin(url)).lower() != _origin(hub).lower():
        return (
            f"{host}, where the Hub keeps the content of files, cannot be reached ({reason}); "
            "allow that host in the firewall or proxy"
        )
    proxy = ", the proxy" if getproxies().keys() - {"no"} else ""
    check = f"check the connection{proxy} and HF_ENDPOINT"
    return f"{not_here}{hub} cannot be reached ({reason}); {check}"


def _explain_status(error: Any, not_found: str) -> str:
    response = error.response
    status, host = response.status_code, _origin(response.url)
    reason = response.headers.get("X-Error-Message")
    match status:
        case 401 if reason:  # also what a missing or private model looks like to a stranger
            return not_found
        case 403 if reason:
            return f"{host} forbids it ({reason}); use a token that has the right"
        case 401 | 403 | 407:
            return (
                f"{host} answered {status}, and not as the Hub does: a proxy or firewall may block "
                "that host; allow it there"
            )
        case 429:
            wait = seconds_asked_for(response.headers)
            when = "later" if wait is None else f"in {wait:.0f} s"
            or_log_in = "" if _was_sent_token(response) else f", or {_LOG_IN} for a higher limit"
            return f"rate limit of {host} exceeded; retry {when}{or_log_in}"
        case _ if status >= 500:
            return f"server error {status} of {host}; try again later"
        case _:
            return f"{host} refuses (status {status}: {error.server_message or 'no reason given'})"


def _is_token_refused(error: BaseException) -> bool:
    """Whether a 401 is about the token: with a good one, a missing model is a 404."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    return (
        isinstance(error, HfHubHTTPError)
        and error.response.status_code == 401
        and not isinstance(error, GatedRepoError)
        and _was_sent_token(error.response)
    )


def _was_sent_token(response: Any) -> bool:
    return "Authorization" in response.request.headers


def _origin(url: Any) -> str:
    import httpx2

    try:
        parsed = httpx2.URL(str(url))
    except httpx2.InvalidURL:
        return str(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


@contextlib.contextmanager
def answers_like_the_hub(model_id: str) -> Iterator[None]:
    """Catch what huggingface_hub stumbles over when the server is something else."""
    try:
        yield
    except (AssertionError, AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise HubUnavailableError(
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


_T = TypeVar("_T")
_FIRST_GUESS = 0.5  # seconds, where the server does not say how long


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a request is repeated.

    huggingface_hub's ``http_backoff`` is not used: it sends one request, and here whole calls of
    its API are repeated, a body that broke off among them; it takes no bound for a wait that the
    server asks for, and has no jitter. tenacity would replace the loop of ``retry`` alone.

    ``tries`` counts the first one. Where the server names no wait, it is half a second before the
    second, doubled for each further one. A wait that it names is kept to, unless it is over
    ``longest`` seconds: then the request has failed.
    """

    tries: int = 3
    longest: float = 60.0


SHORT = RetryPolicy()
"""For somebody who waits for the answer."""

PATIENT = RetryPolicy(tries=6, longest=330.0)
"""For a long run: the Hub's windows are of five minutes."""


def retry(ask: Callable[[], _T], policy: RetryPolicy) -> _T:
    """Return what ``ask`` returns; what it raises at the last try, or beyond help, is raised."""
    import httpx2

    for number in range(policy.tries - 1):
        try:
            return ask()
        except httpx2.HTTPError as error:
            wait = _wait_after(error, _FIRST_GUESS * 2**number, policy.longest)
            if wait is None:
                raise
        sleep(wait)
    return ask()


def _wait_after(error: Exception, guess: float, longest: float) -> float | None:
    """Return the seconds to wait before the next try, or None if there is no use in one."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    asked = None
    if isinstance(error, HfHubHTTPError):
        if not may_pass(error):
            return None
        asked = seconds_asked_for(error.response.headers)
    elif not isinstance(error, httpx2.TransportError) or isinstance(error, httpx2.ProxyError):
        return None
    # Many workers are given the same moment, and must not all come at it.
    jitter = random.uniform(0.0, guess)  # noqa: S311  (nothing secret is drawn)
    if asked is None:
        return guess / 2 + jitter / 2
    return asked + jitter if asked <= longest else None


def seconds_asked_for(headers: Any) -> float | None:
    """Return the seconds of ``Retry-After``, a number or a date, or of the Hub's ``RateLimit``."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    if (until := _moment(value)) is not None:
        return max(0.0, until - (_moment(headers.get("Date", "")) or time()))
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else None


def _moment(date: str) -> float | None:
    """Read a date of HTTP, which is in GMT whatever it says (RFC 9110 5.6.7); None for no date."""
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
