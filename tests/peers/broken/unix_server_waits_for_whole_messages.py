"""Reads messages of five bytes or more, and holds a lock from the first byte of a message to its last. A
client that sends byte by byte makes the others wait."""

import threading

from right import unix_server

lock = threading.Lock()


def echo(connection):
    while data := connection.recv(65_536):
        with lock:
            while len(data) < 5 and (more := connection.recv(65_536)):
                data += more
        connection.sendall(data)


unix_server.echo = echo
unix_server.main()
