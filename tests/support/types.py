"""Short names of the clients that fixtures hand out."""

from __future__ import annotations

import psycopg2
import redis as redis_py

Redis = redis_py.Redis
Db = psycopg2.extensions.connection
