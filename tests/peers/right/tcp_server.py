"""Sends every byte back, to many clients at the same time. It keeps all promises.

    cargo run -p judge -- tcp-server -- python3 tests/peers/right/tcp_server.py {port} {host}
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


def send(connection, data):
    connection.sendall(data)  # It waits until the client reads, if the buffers on the way are full.


def echo(connection):
    """Returns when the client has sent everything, which recv tells by no bytes at all."""
    while data := connection.recv(65_536):
        send(connection, data)


def serve(connection):
    with connection:  # It is closed in any case, so that the client sees the end, and its place is free.
        try:
            # A small segment does not wait until the one before it is acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            echo(connection)
        except OSError:
            pass  # This client has gone. The others have not.


def hand_over(connection):
    """Each client has a thread, so that nobody waits for one that is slow."""
    threading.Thread(target=serve, args=[connection], daemon=True).start()


def main():
    port = int(sys.argv[1])
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    # The family of a socket is that of its address.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        while True:
            hand_over(accept(listener))


if __name__ == "__main__":
    main()
