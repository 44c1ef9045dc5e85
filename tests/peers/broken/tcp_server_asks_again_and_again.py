"""Asks the kernel again and again whether somebody connects, instead of waiting in it."""

from right import tcp_server


def accept(listener):
    listener.setblocking(False)
    while True:
        try:
            connection = listener.accept()[0]
            connection.setblocking(True)
            return connection
        except OSError:
            pass


tcp_server.accept = accept
tcp_server.main()
