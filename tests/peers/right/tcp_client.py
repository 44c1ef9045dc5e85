"""Sends stdin, and prints what comes back, at the same time. It keeps all promises.

    cargo run -p judge -- tcp-client -- python3 tests/peers/right/tcp_client.py {host} {port}
"""

import socket
import sys
import threading

TIMEOUT = 5  # In seconds, for connecting, and for silence once everything is sent.
counts = {"sent": 0, "received": 0}


def send(connection):
    while data := sys.stdin.buffer.read1(65_536):  # As soon as there are some bytes.
        counts["sent"] += len(data)  # Before it is sent, so that what cannot be sent counts as lost.
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)  # The server sees the end, and can still answer.


def receive(connection, sending):
    """Prints what comes, until the server closes. A line may come in pieces, or with the next one."""
    while True:
        try:
            data = connection.recv(65_536)
        except socket.timeout:
            if sending.is_alive():
                continue
            raise
        if not data:
            return
        show(data)
        counts["received"] += len(data)


def show(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def exchange(connection):
    # If it sent everything before it receives, the server could wait for it, and it for the server.
    sending = threading.Thread(target=send, args=[connection], daemon=True)
    sending.start()
    receive(connection, sending)
    sending.join(TIMEOUT)


def main():
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), TIMEOUT) as connection:
            exchange(connection)
    except OSError as error:
        sys.exit(f"cannot go on: {error}")
    if counts["received"] < counts["sent"]:
        sys.exit("{received} of {sent} bytes came back".format(**counts))


if __name__ == "__main__":
    main()
