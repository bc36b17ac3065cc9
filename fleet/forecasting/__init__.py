"""Forecasts of demand: which way of forecasting a series is best by its own past, how far to trust it, and the floor it allows.

Pure: series in, figures out. numpy is loaded here; scikit-learn only when something is fitted with it.
"""

from fleet.forecasting.making import Made, make
from fleet.forecasting.series import Series

__all__ = ["Made", "Series", "make"]
