"""Access control: origins, client addresses and rate limits."""
