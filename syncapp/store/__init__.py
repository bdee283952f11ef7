"""Sessions in Redis or Valkey: keys, scripts, connections, and the sweeper."""
