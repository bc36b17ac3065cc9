"""The customer API as one thing: its addresses, its document, the catalogue, and the metrics of the whole."""
