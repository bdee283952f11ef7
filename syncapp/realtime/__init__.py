"""Updates for watching clients: the hub, its subscriptions and the protocol."""
