"""The benchmark suite: `python -m benchmarks --help`. See docs/benchmarking.md."""
