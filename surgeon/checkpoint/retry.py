"""A request that is repeated while the network or the Hub fails, and no faster than it asks for.

huggingface_hub's ``http_backoff`` waits as long as it is told to, and without a bound.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import sleep
from typing import Any, TypeVar

_T = TypeVar("_T")
_LONGEST_GUESS = 30.0  # seconds between two tries where the server does not say how long


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a request is repeated.

    ``tries`` counts the first one. ``first`` is the wait before the second, in seconds, doubled
    for each further one, where the server names none. A wait that it names is kept to, unless it
    is over ``longest``: then the request has failed.
    """

    tries: int = 3
    first: float = 0.5
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
            wait = _wait_after(error, number, policy)
            if wait is None:
                raise
        sleep(wait)
    return ask()


def _wait_after(error: Exception, number: int, policy: RetryPolicy) -> float | None:
    """Return the seconds to wait before the next try, or None if there is no use in one."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    asked = None
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status != 429 and status < 500:
            return None
        asked = seconds_asked_for(error.response.headers)
    elif not isinstance(error, httpx2.TransportError) or isinstance(error, httpx2.ProxyError):
        return None
    if asked is not None and asked > policy.longest:
        return None
    guess = min(policy.first * 2**number, _LONGEST_GUESS)
    # Many workers were told the same moment, and must not all come at it.
    jitter = random.uniform(0.0, guess)  # noqa: S311  (nothing secret is drawn)
    return guess / 2 + jitter / 2 if asked is None else asked + jitter


def seconds_asked_for(headers: Any) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110 10.2.3) or of the Hub's ``RateLimit``."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    if value:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else None
