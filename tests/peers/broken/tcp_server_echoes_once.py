"""Receives once and sends once. On a stream, one recv returns what has come so far, and not a message."""

from right import tcp_server


def echo(connection):
    tcp_server.send(connection, connection.recv(65_536))


tcp_server.echo = echo
tcp_server.main()
