"""Scripts that make what the project ships and measures; run each as `python -m benchmarks.NAME`."""
