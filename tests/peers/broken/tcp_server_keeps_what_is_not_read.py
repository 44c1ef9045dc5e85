"""Keeps in memory what a client does not read, however much it is. A single client can use up all memory."""

import queue
import threading

from right import tcp_server


def write(connection, waiting):
    try:
        while data := waiting.get():
            connection.sendall(data)
    except OSError:
        pass  # This client has gone.


def echo(connection):
    waiting = queue.SimpleQueue()  # It has no limit.
    writing = threading.Thread(target=write, args=[connection, waiting], daemon=True)
    writing.start()
    try:
        while data := connection.recv(65_536):
            waiting.put(data)
    finally:
        waiting.put(b"")  # The end.
        writing.join()


tcp_server.echo = echo
tcp_server.main()
