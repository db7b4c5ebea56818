"""The gateway: websockets that relay gradients into streams and broadcast weights; the page, programs and data.

Its only state is its sockets: killing one loses nothing.
"""

from services.gateway.server import run

__all__ = ["run"]
