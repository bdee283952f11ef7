"""Real texts of time controls: what they mean (`READ`), or why they are refused (`REFUSED`)."""

from __future__ import annotations

from tests.support.notations import chess, engines_and_sites, go_and_shogi

_TABLES = (chess, go_and_shogi, engines_and_sites)
READ = {text: document for table in _TABLES for text, document in table.READ.items()}
REFUSED = {text: reason for table in _TABLES for text, reason in table.REFUSED.items()}
