"""Sessions as values: their rules, and the schemas of requests. No I/O, no Flask."""
