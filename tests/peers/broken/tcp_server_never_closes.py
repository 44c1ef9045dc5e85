"""Does not notice that a client has sent everything, so the client waits for the end."""

import time

from right import tcp_server


def echo(connection):
    while True:
        data = connection.recv(65_536)
        tcp_server.send(connection, data)
        if not data:
            time.sleep(0.1)


tcp_server.echo = echo
tcp_server.main()
