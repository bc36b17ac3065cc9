"""What running costs us. Pure."""

from __future__ import annotations

from decimal import Decimal

from controlplane.kernel import money


def of_seconds(price_per_hour_microusd: int, seconds: float) -> int:
    """Micro-dollars for `seconds` of one worker."""
    return money.amount(Decimal(str(round(seconds, 3))), Decimal(price_per_hour_microusd) / 3600)
