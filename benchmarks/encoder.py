"""The encoder alone: chips per second, as a fraction of the rate of matrix products, and the original's.

The device's rate of matrix products bounds the encoder, so it is measured too, at the network's own shapes.
The peer (`benchmarks.peer`) is the network as the original built it, with the same weights. All take turns in
rounds, so that other work on the machine affects all equally. The limit is compared with the fastest round,
the peer by medians: its blocks are so large that it gets fresh memory from the system in most rounds, but not
in all.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.networks import RELEASED, network, network_products, random_inputs, square_product
from benchmarks.peer import embed_with_peer
from clay_model import Embedder, Precision
from clay_model.device import resolve_devices
from clay_model.encoder import Encoder

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Contestant:
    """Something that is timed.

    Attributes:
        what: `ours`, `peer` or a matrix product.
        precision: Precision of its matrix products.
        batch: Chips at a time; 0 for a matrix product.
        flops: Floating-point operations of one call.
        run: One call.
        seconds: The duration of each call.
    """

    what: str
    precision: Precision
    batch: int
    flops: float
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    @property
    def gflops(self) -> float:
        """10⁹ operations per second in the fastest round."""
        return self.flops / min(self.seconds) / 1e9

    @property
    def median(self) -> float:
        """Median of the seconds per chip."""
        return statistics.median(self.seconds) / self.batch

    def row(self, limit: "Contestant") -> dict[str, str | int | float]:
        """Return the results, as a fraction of the limit."""
        best = min(self.seconds) / self.batch
        return {
            "what": self.what,
            "precision": self.precision,
            "batch": self.batch,
            "chips_per_s": 1 / best,
            "s_per_chip": best,
            "median_s_per_chip": self.median,
            "gflops": self.gflops,
            "of_limit": self.gflops / limit.gflops,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="v0", choices=RELEASED)
    parser.add_argument("--size", help="default: the released one")
    parser.add_argument("--batches", type=int, nargs="+", help="chips at a time; default: by device")
    parser.add_argument("--seconds", type=float, default=60.0, help="start rounds for so long")
    arguments = parser.parse_args()
    device = resolve_devices(arguments.device)[0]
    batches = arguments.batches or ([1, 2] if device.type == "cpu" else [1, 16, 64])
    spec, size = RELEASED[arguments.model]
    size = arguments.size or size
    if size not in spec.sizes:
        raise SystemExit(f"size is {size!r}, expected one of {', '.join(spec.sizes)} (those of {spec.title})")
    torch.manual_seed(0)
    contestants = list(_contestants(*network(arguments.model, size), device, batches))
    distances = _agreement(contestants)
    rounds = _take_turns(contestants, device, arguments.seconds)
    print(f"{spec.model_name(size)} on {_name(device)}, PyTorch {torch.__version__}, {rounds} rounds")
    print(f"{'':20}{'batch':>6}{'chips/s':>10}{'s/chip':>9}{'median':>9}{'GFLOP/s':>10}{'of limit':>10}")
    rows, summary = [], {}
    for precision in DTYPES:
        found = [one for one in contestants if one.precision == precision]
        limit = max((one for one in found if not one.batch), key=lambda one: one.gflops)
        ours, peer = ([one for one in found if one.what == what] for what in ("ours", "peer"))
        rows += [one.row(limit) for one in ours + peer]
        summary[precision] = {
            "limit_gflops": limit.gflops,
            "limit_is": limit.what,
            "of_limit": max(one.gflops for one in ours) / limit.gflops,
            "times_peer": min(one.median for one in peer) / min(one.median for one in ours),
        }
    for row in rows:
        print(
            f"{row['what']:6}{row['precision']:14}{row['batch']:6}{row['chips_per_s']:10.3f}"
            f"{row['s_per_chip']:9.4f}{row['median_s_per_chip']:9.4f}{row['gflops']:10.0f}{row['of_limit']:10.1%}"
        )
    for precision, facts in summary.items():
        print(
            f"{precision}: limit {facts['limit_gflops']:.0f} GFLOP/s ({facts['limit_is']}),"
            f" ours {facts['of_limit']:.1%} of it and {facts['times_peer']:.2f} times the peer (medians)"
        )
    print("vectors, relative distance to the peer's in float32: ", end="")
    print(", ".join(f"{what} {distance:.1e}" for what, distance in distances.items()))
    facts = {"device": _name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    facts |= {"model": spec.model_name(size), "rounds": rounds, "rows": rows, "summary": summary}
    print(json.dumps({"benchmark": "encoder", **facts, "distance_to_peer_fp32": distances}))


def _contestants(
    encoder: Encoder, peer: nn.Module, device: torch.device, batches: list[int]
) -> Iterator[Contestant]:
    """Yield ours in both precisions, the peer likewise (on a CPU with the smallest batch), and products."""
    spec, dimensions = encoder.spec, encoder.dimensions
    chips = {batch: random_inputs(encoder, batch, device) for batch in batches}
    peer = peer.to(device)
    for precision, dtype in DTYPES.items():
        embedder = Embedder(_copy(encoder), device, precision)
        for batch, inputs in chips.items():
            flops = float(batch * spec.flops(dimensions))
            run = functools.partial(embedder.encode, *inputs, spec.default_level)
            yield Contestant("ours", precision, batch, flops, run)
            if device.type == "cuda" or batch == batches[0]:  # on the CPU larger batches slow the peer down
                run = functools.partial(embed_with_peer, peer, *inputs, precision == "bf16")
                yield Contestant("peer", precision, batch, flops, run)
        products = list(network_products(dimensions, spec.tokens * batches[0], dtype, device))
        if device.type == "cuda":
            products += network_products(dimensions, spec.tokens * batches[-1], dtype, device)
            products.append(square_product(dtype, device))
        for what, flops, product in products:
            yield Contestant(what, precision, 0, flops, product)


def _copy(encoder: Encoder) -> Encoder:
    """Return an encoder with the same weights: an `Embedder` changes its encoder."""
    copied = type(encoder)(encoder.dimensions).requires_grad_(False)
    copied.load_state_dict(encoder.state_dict())
    return copied


def _agreement(contestants: list[Contestant]) -> dict[str, float]:
    """Return the relative distance of the first chip's vector to the peer's in float32; warms up."""
    vectors: dict[str, Tensor] = {}
    for one in contestants:
        result = one.run()
        if isinstance(result, Tensor) and one.batch:
            vectors.setdefault(f"{one.what} {one.precision}", result[0].double().cpu())
    reference = vectors.pop("peer fp32")
    return {what: float((vector - reference).norm() / reference.norm()) for what, vector in vectors.items()}


def _take_turns(contestants: list[Contestant], device: torch.device, seconds: float) -> int:
    """Time each contestant once per round until the time is up; return the number of rounds."""
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    end = time.perf_counter() + seconds
    while True:
        for one in contestants:
            wait()
            started = time.perf_counter()
            one.run()
            wait()
            one.seconds.append(time.perf_counter() - started)
        if time.perf_counter() > end:
            return len(contestants[0].seconds)


def _name(device: torch.device) -> str:
    """Return the device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.processor() or platform.machine())
    family = f" family {facts['cpu family']} model {facts['model']}" if "cpu family" in facts else ""
    return f"{torch.get_num_threads()} threads of {name}{family}"


if __name__ == "__main__":
    main()
