"""How fast, how large, how exact: measurements that anybody can run. ``python -m benchmarks --help``; docs/benchmarks.md."""
