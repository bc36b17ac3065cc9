"""Money is integers of micro-dollars; unit prices are Decimal; nothing is ever a float.

One dollar is 1,000,000 micro-dollars. Amounts are rounded once, where a quantity meets its
unit price, half away from zero, so that a total is always the sum of its entries.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

MICRO = 1_000_000


def amount(quantity: Decimal | int, unit_price_microusd: Decimal | int) -> int:
    """Micro-dollars owed for `quantity` at `unit_price_microusd` each."""
    return int((Decimal(quantity) * Decimal(unit_price_microusd)).quantize(Decimal(1), ROUND_HALF_UP))


def from_usd(text: str | int | Decimal) -> int:
    """Micro-dollars from a dollar amount such as "12.04"; raises ValueError on anything finer or not a number."""
    try:
        micro = Decimal(str(text)) * MICRO
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount of dollars") from None
    if not micro.is_finite() or micro != micro.to_integral_value():
        raise ValueError(f"{text!r} is finer than one micro-dollar")
    return int(micro)


def to_usd(microusd: int) -> str:
    """The exact dollar amount as a plain decimal string: 12040000 → "12.04", 3600 → "0.0036"."""
    text = f"{Decimal(microusd) / MICRO:.6f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}"


def display(microusd: int, *, tile: bool = False) -> str:
    """Dollars for people: two decimals from $1, four below, none from $10,000 in tiles."""
    sign = "−" if microusd < 0 else ""
    usd = abs(Decimal(microusd)) / MICRO
    if tile and usd >= 10_000:
        return f"{sign}${usd:,.0f}"
    if usd >= Decimal("0.99995") or usd == 0:  # what would read $1.0000 is a dollar
        return f"{sign}${usd:,.2f}"
    return f"{sign}${usd:.4f}"
