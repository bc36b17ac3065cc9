"""The stream process: what stays open. Workers' long polls, customers' event streams, and, where no other
front exists (`make up`), a plain reverse proxy to the web process, so that the outside sees one origin.

Run as `uvicorn controlplane.stream:app`. It holds no state: killing it costs a reconnect.
"""

from controlplane.stream.app import app

__all__ = ["app"]
