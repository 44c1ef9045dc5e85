"""Closes with a reset (SO_LINGER of 0 seconds). What the client has not received yet is lost."""

import socket
import struct

from right import tcp_server


def echo(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while data := connection.recv(65_536):
        tcp_server.send(connection, data)


tcp_server.echo = echo
tcp_server.main()
