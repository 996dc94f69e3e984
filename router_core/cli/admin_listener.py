"""Administration on an address of its own: the same keys, TLS and limits as clients have, and no way to a worker."""

from __future__ import annotations

from router_core.relay.exchange import Exchange
from router_core.relay.parties import Destination
from router_core.relay.server import RelayServer
from router_core.relay.tls import ServerTls
from router_core.traffic.routes import DirectListener

_GRACE_S = 1.0


class AdminListener:
    """Listens where administrators are.

    Attributes:
        relay: Reads their requests.
        address: Where it listens, once it does.
    """

    def __init__(self, relay: RelayServer, control: Destination) -> None:
        self.relay = relay
        self.address: tuple[str, int] | None = None
        self._control = control

    def handle(self, exchange: Exchange) -> None:
        """Take one request."""
        exchange.forward(self._control, DirectListener(exchange))

    async def start(self, host: str, port: int, tls: ServerTls | None) -> None:
        """Listen.

        Raises:
            OSError: If the address cannot be had.
        """
        self.address = await self.relay.start(host, port, tls)

    async def stop(self) -> None:
        """Stop listening; what runs has a moment to finish."""
        await self.relay.stop(_GRACE_S)
