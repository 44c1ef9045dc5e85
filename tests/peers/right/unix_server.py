"""Sends every byte back, to many clients on the same machine. It keeps all promises.

    cargo run -p judge -- unix-server -- python3 tests/peers/right/unix_server.py {path}
"""

import socket
import sys
import threading
import time


def accept(listener):
    while True:
        try:
            return listener.accept()[0]
        except OSError:
            time.sleep(0.1)  # No descriptor is free. Without a pause, this loop would spin until one is.


def echo(connection):
    """Returns when the client has sent everything, which recv tells by no bytes at all."""
    while data := connection.recv(65_536):
        connection.sendall(data)  # It waits until the client reads, if the buffer on the way is full.


def serve(connection):
    with connection:  # It is closed in any case, so that the client sees the end, and its place is free.
        try:
            echo(connection)
        except OSError:
            pass  # This client has gone. The others have not.


def main():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        while True:
            # Each client has a thread, so that nobody waits for one that is slow.
            threading.Thread(target=serve, args=[accept(listener)], daemon=True).start()


if __name__ == "__main__":
    main()
