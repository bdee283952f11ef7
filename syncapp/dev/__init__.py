"""Private servers and processes, for `make run` and tests."""
