"""``surgeon atlas`` over models of BERT-base's shapes on a local Hub: rate, bytes and requests.

    PYTHONPATH=tests python tests/benchmarks/atlas_rate.py [MODELS] [LATENCY]

The Hub is a thread on this machine, which shares its cores with the workers: there is no network,
so the rates without a latency are what the tool itself takes, not what the Hub allows. The server
then waits LATENCY seconds (0.05) before each answer, which stands for a network's round trip, and
what 100,000 models take at it is computed from what was measured. At the end the table of many
models is written from their rows, for its time and memory.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hub_server import HubServer, serve
from small_models import write_bert_base

from surgeon import build_atlas
from surgeon.study.atlas import RATE, open_rows, rows_path, write_atlas
from surgeon.study.engines import choose_engine

_HIDDEN = 768
_ROWS_OF = 5000  # models whose table is written
_MANY = 100_000
_QUOTAS = {"a stranger": (500, 3000), "a free account": (1000, 5000)}
"""Requests in five minutes to the API and for files' places, as the Hub documents its limits."""


def main(models: int, latency: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"HF_HOME": name, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        os.environ |= {"HF_TOKEN_PATH": str(folder / "none"), "NO_PROXY": "*"}
        bert = write_bert_base(folder / "bert")
        with serve({f"org/m{n}": bert for n in range(models)}) as hub:
            os.environ["HF_ENDPOINT"] = hub.url
            for hub.delay, workers in itertools.product((0.0, latency), (1, 4)):
                measured = _measure(hub, folder / f"{workers}-{hub.delay}.parquet", workers)
        _extrapolate(measured)
        _write_large_table(folder / f"4-{latency}.parquet", folder / "large.parquet")


@dataclass(frozen=True)
class Measured:
    """What a model took: its files' bytes, requests to the Hub and its share of the time."""

    bytes_read: float
    listings: float
    places: float
    rate: float


def _extrapolate(measured: Measured) -> None:
    gigabytes = measured.bytes_read * _MANY / 1e9
    print(f"{_MANY:,} models, computed: {gigabytes:.1f} GB of their files; the hours they take are")
    print(f"  {_MANY / measured.rate / 3600:.1f} at the rate of the last line above, unlimited")
    print(f"  {_MANY / RATE / 3600:.1f} at the default --rate {RATE}")
    for whose, (listings, places) in _QUOTAS.items():
        windows = max(measured.listings / listings, measured.places / places) * _MANY
        print(f"  {windows * 300 / 3600:.1f} at least within the Hub's limits for {whose}")


def _measure(hub: HubServer, out: Path, workers: int) -> Measured:
    hub.requests.clear()
    engine = choose_engine("local", workers)
    built = build_atlas(hub.repositories, out, engine=engine, rate=10_000)
    assert built.failed == 0
    listings = [request for request in hub.requests if request.path.startswith("/api/models/")]
    placed = [request for request in hub.requests if "/resolve/" in request.path]
    parts = len(hub.requests) - len(listings) - len(placed)
    # From the second on, so that the start of the workers does not count.
    span = max(request.at for request in hub.requests) - listings[workers].at
    models = built.total
    rate = (models - workers) / span
    print(
        f"latency {hub.delay * 1000:.0f} ms, {workers} workers: "
        f"{rate:.1f} models a second; a model: "
        f"{built.bytes_read / models:,.0f} bytes of its files, {len(listings) / models:.0f} "
        f"listing, {len(placed) / models:.0f} places, {parts / models:.0f} parts; "
        f"{sum(seconds for seconds in _seconds(out)) / models:.3f} s"
    )
    share = len(listings) / models, len(placed) / models
    return Measured(built.bytes_read / models, *share, rate)


def _seconds(out: Path) -> Iterator[float]:
    for line in rows_path(out).read_text().splitlines()[1:]:
        yield json.loads(line)["seconds"]


def _write_large_table(small: Path, out: Path) -> None:
    header, row = rows_path(small).read_text().splitlines()[:2]
    content, random = json.loads(row), np.random.default_rng(0)
    with rows_path(out).open("w") as file:
        file.write(f"{header}\n")
        for number in range(_ROWS_OF):
            names = ("strength", "gain_z", "bias_z", "max_gain_z")
            drawn = {name: random.normal(size=_HIDDEN).round(5).tolist() for name in names}
            file.write(json.dumps({**content, **drawn, "model": f"org/m{number}"}) + "\n")
    import pyarrow.parquet  # noqa: F401  (its own memory is not the table's)

    before, start = _peak(), time.perf_counter()
    with open_rows(out, 3.0, 0.5) as journal:
        read = time.perf_counter() - start
        write_atlas(out, journal.rows(journal.entries))
    seconds = time.perf_counter() - start - read
    sizes = (path.stat().st_size / 1e6 for path in (rows_path(out), out))
    print(
        f"table of {_ROWS_OF:,} models x {_HIDDEN} dims: rows read in {read:.1f} s, written in "
        f"{seconds:.1f} s; {next(sizes):.0f} MB of rows, {next(sizes):.0f} MB of table; peak "
        f"memory {before:.0f} to {_peak():.0f} MiB"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 200,
        float(sys.argv[2]) if len(sys.argv) > 2 else 0.05,
    )
