"""Tries again and again to write to a client that does not read, instead of waiting until it can."""

import socket

from right import tcp_server


def send(connection, data):
    while data:
        try:
            data = data[connection.send(data, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass


tcp_server.send = send
tcp_server.main()
