"""The customer's edge of the fleet: submit jobs, watch them, take their outputs, send files. Parses, calls one function, answers."""
