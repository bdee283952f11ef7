"""Who may use the service, and how much: origins, client addresses and rate limits."""
