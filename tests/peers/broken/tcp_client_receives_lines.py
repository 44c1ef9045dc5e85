"""Sends a line, and takes what one recv returns for the whole line that comes back."""

import sys

from right import tcp_client


def exchange(connection):
    for line in sys.stdin.buffer:
        connection.sendall(line)
        tcp_client.show(connection.recv(65_536))


tcp_client.exchange = exchange
tcp_client.main()
