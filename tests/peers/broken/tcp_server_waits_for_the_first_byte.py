"""Waits for the first byte of a client before it accepts the next. A client that is silent stops it."""

import socket

from right import tcp_server

hand_over_at_once = tcp_server.hand_over


def hand_over(connection):
    try:
        connection.recv(1, socket.MSG_PEEK)
    except OSError:
        pass  # It has been reset.
    hand_over_at_once(connection)


tcp_server.hand_over = hand_over
tcp_server.main()
