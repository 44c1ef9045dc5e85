"""The shortest UDP server: udp-server/examples/first.rs in Python. Its argument is a port."""

import socket
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", port))
print("listening on {}:{}".format(*server.getsockname()), flush=True)
while True:
    datagram, peer = server.recvfrom(65527)  # The longest datagram fits.
    server.sendto(datagram, peer)
