"""What `make bench` measures (docs/performance.md)."""
