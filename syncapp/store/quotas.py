"""Quotas of principals and tenants, as lua/_quotas.lua gets them: creates, live sessions, bytes, self-made commits."""

from __future__ import annotations

from syncapp.config import Settings
from syncapp.domain.results import Costs
from syncapp.errors import RateLimited
from syncapp.metrics import LIMITED

CORRECTED_S = 20
"""Seconds after which the sweeper corrects the number of live sessions again."""
_MINUTE_US = 60_000_000
_HOUR_US = 3_600_000_000


class Quotas:
    """The quotas of one process's settings; 0 means no limit."""

    def __init__(self, settings: Settings) -> None:
        self._creates = settings.principal_creates_per_minute
        self._live = settings.tenant_live_sessions
        self._bytes = settings.tenant_store_bytes_per_hour
        self._commits = settings.tenant_self_commits_per_hour
        self._sentences = (
            ("principal_creates_per_minute", self._creates, "this principal may create {} sessions a minute"),
            ("tenant_live_sessions", self._live, "this tenant may have {} live sessions; complete or cancel some"),
            (
                "tenant_store_bytes_per_hour",
                self._bytes,
                "this tenant may add {} bytes to the store an hour: sessions, metadata and idempotency keys",
            ),
            (
                "tenant_self_commits_per_hour",
                self._commits,
                "sessions of this tenant may make {} commits an hour by themselves, by skip_cycle",
            ),
        )

    def argument(self, costs: Costs) -> str:
        """Return what lua/_quotas.lua reads of the argument `limits`; a quota without a limit costs nothing."""
        return " ".join(
            (
                _part(costs.creates, self._creates, _MINUTE_US, _MINUTE_US),
                str(self._live) if costs.creates and self._live else "",
                _part(costs.size, self._bytes, _HOUR_US, _HOUR_US // 4),
                _part(costs.commits, self._commits, _HOUR_US, _HOUR_US),
            )
        )

    def refusal(self, number: int, wait_us: int) -> RateLimited:
        """Count a refusal by the quota of a number, from 1, and return its error."""
        setting, limit, sentence = self._sentences[number - 1]
        LIMITED.labels(setting).inc()
        retry_after_s = CORRECTED_S if setting == "tenant_live_sessions" else -(-wait_us // 1_000_000)
        return RateLimited(sentence.format(limit), {"reason": setting, "limit": limit, "retry_after_s": retry_after_s})


def _part(amount: float, limit: int, per_us: int, burst_us: int) -> str:
    """Return the time (µs) in which a quota regains an amount, at most the burst, and the burst (µs)."""
    return f"{min(round(amount * per_us / limit), burst_us) if limit else 0} {burst_us}"
