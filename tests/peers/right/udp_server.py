"""Sends each datagram back to where it came from. It keeps all promises.

    cargo run -p judge -- udp-server -- python3 tests/peers/right/udp_server.py {port} {host}
"""

import socket
import sys


def receive(server):
    """Returns a datagram and its sender. What does not fit into the buffer would be lost, so the buffer
    takes the longest datagram that there can be."""
    return server.recvfrom(65_535)


def may_be_answered(server, peer):
    """Services that answer everything have ports below 1024, or the same port as this one. Two of them
    would answer each other forever, and anybody can start it, because a sender can be forged."""
    port = peer[1]
    return port >= 1024 and port != server.getsockname()[1]


def answer(server, data, peer):
    try:
        server.sendto(data, peer)
    except OSError:
        pass  # This peer cannot be reached. The others can.


def serve(server):
    while True:
        data, peer = receive(server)
        if may_be_answered(server, peer):
            answer(server, data, peer)


def main():
    port = int(sys.argv[1])
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    # The family of a socket is that of its address.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, port))
        serve(server)


if __name__ == "__main__":
    main()
