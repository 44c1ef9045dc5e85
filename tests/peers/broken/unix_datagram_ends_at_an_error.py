"""Ends at an error of a send: the peer may have gone, and that concerns nobody else."""

import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
    server.bind(sys.argv[1])
    while True:
        data, peer = server.recvfrom(65_535)
        server.sendto(data, peer)
