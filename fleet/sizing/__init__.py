"""How many workers a pool should have. Pure: what was seen goes in, a proposal comes out, bounds make a decision of it.

`seen` is what every policy is shown, `policies` names them, `bounding` holds what no policy may pass, `victims` says who
leaves. The same code runs in the scaler, in the simulator, in a replay and in shadow.
"""
