"""The shortest UDP server: the same as udp-server/examples/first.rs, with a port as its argument."""

import socket
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", port))
print("listening on {}:{}".format(*server.getsockname()), flush=True)
while True:
    datagram, peer = server.recvfrom(65527)  # The longest datagram fits.
    server.sendto(datagram, peer)
