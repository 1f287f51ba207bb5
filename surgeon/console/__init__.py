"""The only package that prints: tables and verdicts for people, JSON for scripts.

Results go to standard output, progress and notes to standard error, so that ``--json`` leaves one
document and nothing else on standard output. Each function is imported when it is first used:
printing an error takes no numpy, which may be what failed to load.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
