"""All benchmarks, one after another: `python -m benchmarks`, or `make bench`."""

from importlib import import_module

for name in ("decode", "encoder", "tile", "growth", "search"):
    print(f"\n== {name}", flush=True)
    import_module(f"benchmarks.{name}").main()
