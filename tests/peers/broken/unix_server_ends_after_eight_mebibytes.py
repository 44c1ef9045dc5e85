"""Closes a connection after 8 MiB, as if nobody could have more to send."""

from right import unix_server


def echo(connection):
    echoed = 0
    while echoed < 8 << 20 and (data := connection.recv(65_536)):
        connection.sendall(data)
        echoed += len(data)


unix_server.echo = echo
unix_server.main()
