# The "UDP Echo Server" of Python's documentation of asyncio, as it stands there, with the address as the only change:
# https://docs.python.org/3.11/library/asyncio-protocol.html#udp-echo-server (Zero-Clause BSD license). judge --known
# asks it for our promises.
import asyncio
import sys


class EchoServerProtocol:
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        message = data.decode()
        print('Received %r from %s' % (message, addr))
        print('Send %r to %s' % (message, addr))
        self.transport.sendto(data, addr)


async def main():
    print("Starting UDP server")

    # Get a reference to the event loop as we plan to use
    # low-level APIs.
    loop = asyncio.get_running_loop()

    # One protocol instance will be created to serve all
    # client requests.
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: EchoServerProtocol(),
        local_addr=(sys.argv[1], int(sys.argv[2])))

    try:
        await asyncio.sleep(3600)  # Serve for 1 hour.
    finally:
        transport.close()


asyncio.run(main())
