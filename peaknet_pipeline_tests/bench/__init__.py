"""Claims about the benchmarks."""
