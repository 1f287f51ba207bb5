"""A checkpoint as transformers loads it in PyTorch, and its tokenizer."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

# Read once, when transformers is imported: no kernel, which is code, is fetched from the Hub.
os.environ["USE_HUB_KERNELS"] = "NO"


def memory_left() -> float:
    """Return how many bytes of memory are free for this process.

    Where nothing says it, as on macOS, that is all there are, or infinite.
    """

    def noted(path: str, key: str) -> int:
        lines = Path(path).read_text("ascii").splitlines()
        (value,) = (int(line.split()[1]) for line in lines if line.startswith(key))
        return value

    found, group = [math.inf], "/sys/fs/cgroup/memory"
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, LookupError, ValueError):
        found.append(1024 * noted("/proc/meminfo", "MemAvailable:"))
    with contextlib.suppress(OSError, LookupError, ValueError):  # of a container
        limit, used = (int(Path(f"{group}.{n}").read_text("ascii")) for n in ("max", "current"))
        found.append(limit - used + noted(f"{group}.stat", "inactive_file"))  # which can be freed
    return min(found)
