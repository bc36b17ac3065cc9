"""Demo data: a small catalogue, customers on different plans, and a little past made by real jobs.

The graphs beside this file are ordinary API-format exports of model-free core nodes; everything goes in through the
same doors a person would use.
"""
