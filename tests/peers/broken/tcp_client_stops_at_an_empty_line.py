"""Takes an empty line for the end of its input."""

import socket
import sys

from right import tcp_client


def send(connection):
    for line in sys.stdin.buffer:
        if not line.strip():
            break
        tcp_client.counts["sent"] += len(line)
        connection.sendall(line)
    connection.shutdown(socket.SHUT_WR)


tcp_client.send = send
tcp_client.main()
