"""Short names for the clients that fixtures return."""

from __future__ import annotations

import psycopg2
import redis as redis_py

Redis = redis_py.Redis
Db = psycopg2.extensions.connection
