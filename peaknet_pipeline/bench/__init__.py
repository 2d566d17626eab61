"""Benchmarks behind `peaknet bench NAME`, each measured side by side with its reference."""
