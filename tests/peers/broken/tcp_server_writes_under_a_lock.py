"""Holds a lock while it writes. The write to a client that does not read never returns."""

import threading

from right import tcp_server

lock = threading.Lock()


def send(connection, data):
    with lock:
        connection.sendall(data)


tcp_server.send = send
tcp_server.main()
