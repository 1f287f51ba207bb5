"""What makes two answers the same, as SQuAD counts it (Rajpurkar et al. 2016, section 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words_of(answer: str) -> list[str]:
    """Return an answer's words in lower case, without punctuation and articles."""
    plain = answer.lower().translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """Return 1 if the answer is one of those expected; with none, an empty one is right."""
    return float(any(words_of(answer) == words_of(other) for other in expected or ("",)))


def best_f1(answer: str, expected: Sequence[str]) -> float:
    """Return the best overlap in words with one of the expected answers, from 0 to 1."""
    return max(_f1(words_of(answer), words_of(other)) for other in expected or ("",))


def _f1(first: Sequence[str], second: Sequence[str]) -> float:
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))
