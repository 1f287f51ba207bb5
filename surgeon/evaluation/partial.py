"""What an interrupted evaluation has observed so far, in the artifact's folder, to go on from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.scoring.tasks.task import Floats
from surgeon.surgery import disk
from surgeon.surgery.source_files import PARTIAL_EVALUATION
from surgeon.surgery.staging import replace_file


@dataclass(frozen=True)
class Partial:
    """The file of one evaluation's observations.

    ``key`` stands for all that they depend on: another artifact, text, task or seed has another.
    """

    path: Path
    key: str

    def load(self) -> Floats | None:
        """Return what was observed, (variants, examples so far, kept); None if there is nothing.

        A variant that had not seen an example has NaN there.
        """
        if not self.path.is_file():
            return None
        raw = self.path.read_bytes()
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
                if sum(entry.file_size for entry in stored.zip.infolist()) > len(raw):
                    return None  # compressed, which save does not do
                observed: Floats = stored["observed"]
                same = str(stored["key"]) == self.key and observed.dtype == np.float64
        except Exception:  # noqa: BLE001  (numpy's, zip's and Python's own, as the damage is)
            # Not a file that save wrote, or not all of it: begin anew.
            return None
        return observed if same else None

    def save(self, observed: Floats) -> None:
        """Keep what was observed so far, whole at every moment."""
        buffer = io.BytesIO()
        np.savez(buffer, key=np.array(self.key), observed=observed)
        replace_file(self.path, buffer.getvalue())

    def remove(self) -> None:
        """Forget it: the evaluation is done."""
        disk.remove(self.path)


def partial_of(artifact: Path, settings: Mapping[str, Any]) -> Partial:
    """Name the file for an evaluation with these settings, which are plain JSON values."""
    canonical = json.dumps(settings, sort_keys=True).encode()
    return Partial(artifact / PARTIAL_EVALUATION, hashlib.sha256(canonical).hexdigest())
