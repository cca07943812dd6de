"""Projects the hours, dollars, requests and rows of embedding many tiles, on a laptop, a box or a cluster.

    python -m benchmarks.scaling --tiles 56000 --chips-per-tile 480 --workers 64 --encode 200

Each rate is measured (`RATES` names the benchmark) or an argument. The results are projected, and marked so.
Replace the default prices by yours.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """An input of the projection.

    Attributes:
        default: The value, if no argument is given.
        unit: Its unit.
        source: The benchmark that measured it; `yours` or `list price` mark an assumption.
    """

    default: float
    unit: str
    source: str


RATES: Mapping[str, Rate] = {
    "encode": Rate(1.00, "chips/s a worker", "benchmarks.encoder: `small` at bf16, two cores, no GPU"),
    "decode": Rate(36.0, "chips/s a core", "benchmarks.decode: land, strips of one row, 7.1 MB"),
    "cores": Rate(2, "cores a worker", "yours"),
    "network": Rate(10.0, "Gbit/s a worker", "yours"),
    "chip_mb": Rate(7.4, "MB a chip as it is stored", "benchmarks.tile: chips of land, an earlier run"),
    "start_s": Rate(8.0, "s from a run's start to its first chip", "benchmarks.tile: 6.3 to 7.6 s"),
    "tile_s": Rate(0.086, "s a tile besides its chips", "benchmarks.growth: a current tile"),
    "around_s": Rate(0.6, "CPU s a tile of Dagster, PostgreSQL and Ray", "cluster --measure"),
    "rows": Rate(12.6, "rows a tile in PostgreSQL", "benchmarks.events"),
    "row_kb": Rate(26.6, "kB a tile in PostgreSQL", "benchmarks.events: 20 chips a tile"),
    "tick_ms": Rate(
        10.9, "ms of CPU of a tick for a tile on S3", "benchmarks.tick: 480 chips, nothing cached"
    ),
    "latency_ms": Rate(40.0, "ms of an S3 request", "yours"),
    "result_kb": Rate(
        4.0, "kB a chip in results and file together", "yours: 768 numbers of 4 bytes, and the rest"
    ),
    "worker_dollars": Rate(1.0, "$ a worker and hour", "yours"),
    "get_dollars": Rate(0.0004, "$ a thousand GETs", "list price of S3 Standard in us-east-1"),
    "put_dollars": Rate(0.005, "$ a thousand PUTs and LISTs", "list price of S3 Standard in us-east-1"),
    "egress_dollars": Rate(0.0, "$ a GB read", "yours: 0 within a region; 0.02 between regions is usual"),
}
"""By argument name."""

TILES_PER_TICK = 2_000
SURVEYED_AT_ONCE = 32
REQUESTS_PER_TILE = 3
"""Of a tick: `clay_assets.dagster.automation`, `clay_assets.state.survey`, and requests if nothing is
cached."""

SENSOR_TICKS = 144
"""Sensor ticks a day: one every ten minutes."""

PUTS_AND_LISTS = 16.5
GETS_AND_HEADS = 8.6
"""Requests per tile, measured by `cluster --measure`; a GET per chip comes on top."""


def project(
    rates: Mapping[str, float], *, tiles: int, chips_per_tile: int, workers: int, per_run: int
) -> dict[str, str]:
    """Return the cost of a job as text.

    Args:
        rates: Values by the names of `RATES`.
        tiles: Number of tiles in the manifest.
        chips_per_tile: On all dates together.
        workers: Runs at once, each with its own GPU or host.
        per_run: Tiles in a run.
    """
    chips = tiles * chips_per_tile
    limits = {
        "encoding": rates["encode"],
        "decoding": rates["decode"] * rates["cores"],
        "the network": rates["network"] * 1000 / 8 / rates["chip_mb"],
    }
    bound = min(limits, key=lambda name: limits[name])
    runs = math.ceil(tiles / per_run)
    overhead_s = runs * rates["start_s"] + tiles * rates["tile_s"]
    busy_h = (chips / limits[bound] + overhead_s) / 3600
    # The last runs do not occupy all workers: half a run's time, on average.
    wall_h = busy_h / workers + busy_h / runs / 2 * (workers > 1)
    puts_and_lists = tiles * (PUTS_AND_LISTS + chips_per_tile // 1000) / 1000
    gets = (chips + tiles * GETS_AND_HEADS) / 1000
    dollars = {
        "workers": busy_h * rates["worker_dollars"],
        "requests": gets * rates["get_dollars"] + puts_and_lists * rates["put_dollars"],
        "egress": chips * rates["chip_mb"] / 1000 * rates["egress_dollars"],
    }
    total = sum(dollars.values())
    around_h = tiles * rates["around_s"] / 3600
    per_tick, ticks = min(tiles, TILES_PER_TICK), math.ceil(tiles / TILES_PER_TICK)
    tick_cpu = per_tick * rates["tick_ms"] / 1000
    tick_wait = per_tick * REQUESTS_PER_TILE * rates["latency_ms"] / 1000 / SURVEYED_AT_ONCE
    # Per sensor tick: one LIST per tile, and the results and published files of all tiles, 1,000 a LIST.
    lists = SENSOR_TICKS * (per_tick + 2 * math.ceil(tiles / 1000))
    return {
        "chips": f"{chips:,}, {chips * rates['chip_mb'] / 1e6:,.1f} TB to read",
        "rate of a worker": f"{limits[bound]:,.2f} chips/s, bound by {bound}",
        "its limits": ", ".join(f"{name} {rate:,.1f}" for name, rate in limits.items()),
        "worker hours": f"{busy_h:,.1f}, {100 * overhead_s / 3600 / busy_h:.2f} % of it starts and records",
        "hours from start to end": f"{wall_h:,.1f} with {workers} workers and {runs:,} runs",
        "read at once": f"{workers * limits[bound] * rates['chip_mb'] / 1000:,.1f} GB/s by all workers",
        "dollars": ", ".join(f"{name} {value:,.2f}" for name, value in dollars.items()) + f": {total:,.2f}",
        "dollars per million chips": f"{total / chips * 1e6:,.2f}",
        "results and files": f"{chips * rates['result_kb'] / 1e6:,.1f} GB",
        "PostgreSQL": f"{tiles * rates['rows']:,.0f} rows, {tiles * rates['row_kb'] / 1e6:,.2f} GB",
        "besides the workers": f"{around_h:,.1f} core hours of Dagster, PostgreSQL and Ray:"
        f" {around_h / wall_h:,.1f} cores to keep pace",
        "a tick of the schedule": f"{max(tick_cpu, tick_wait):,.0f} s: {tick_cpu:,.0f} s of one core,"
        f" {tick_wait:,.0f} s of waiting in parallel, for {per_tick:,} tiles; {ticks} ticks a day;"
        " the limit is 60 s",
        "the sensor, every 10 minutes": f"{lists:,} LISTs a day,"
        f" {lists / 1000 * rates['put_dollars']:,.2f} $ a day; each tile every {10 * ticks:,} minutes",
    }


def main() -> None:
    """Compute the projection and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=1203)
    parser.add_argument("--chips-per-tile", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1, help="runs at once")
    parser.add_argument("--tiles-per-run", type=int, default=64)
    for name, rate in RATES.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, help=f"{rate.unit}; {rate.default:g}: {rate.source}"
        )
    options = vars(parser.parse_args())
    given = {name: options[name] for name in RATES if options[name] is not None}
    rates = {name: given.get(name, rate.default) for name, rate in RATES.items()}
    for name, rate in RATES.items():
        origin = "assumed" if rate.source.startswith(("yours", "list price")) else "measured"
        origin = "given" if name in given else origin
        print(f"{origin:10} {rates[name]:10g} {rate.unit:40} {'' if name in given else rate.source}".rstrip())
    sizes = {name: options[name] for name in ("tiles", "chips_per_tile", "workers")}
    for what, text in project(rates, **sizes, per_run=options["tiles_per_run"]).items():
        print(f"projected  {what:28} {text}")


if __name__ == "__main__":
    main()
