"""Side by side with peers, interleaved in one run: `make bench`. What each compares: docs/benchmarks.md."""
