"""The shortest UDP client: udp-client/examples/first.rs in Python. Its argument is a port."""

import socket
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("127.0.0.1", 0))  # The kernel chooses a free port.
client.sendto(b"hello", ("127.0.0.1", port))
datagram, peer = client.recvfrom(65527)
print("{}:{}: {}".format(*peer, datagram.decode()))
