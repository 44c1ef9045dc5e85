"""Sends each line of stdin as a datagram, and prints each echo as a line. It keeps all promises.

    cargo run -p judge -- udp-client -- python3 tests/peers/right/udp_client.py {host} {port}
"""

import socket
import sys
import time

ATTEMPTS = 3
TIMEOUT = 1  # In seconds, for each attempt.


def open_socket(server):
    """A connected socket takes datagrams from this server alone, and reports that nobody listens."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(server)
    return client


def receive(client):
    return client.recv(65_535)  # The buffer takes the longest datagram.


def is_echo(answer, message):
    return answer == message  # A late or second echo of another message is none of this one.


def ask(client, message):
    for _ in range(ATTEMPTS):  # UDP loses datagrams without telling anybody.
        client.send(message)
        deadline = time.monotonic() + TIMEOUT  # It holds for all that comes, not for each datagram.
        while (left := deadline - time.monotonic()) > 0:
            client.settimeout(left)
            try:
                answer = receive(client)
            except socket.timeout:
                break
            if is_echo(answer, message):
                return answer
    sys.exit("no answer")


def show(answer):
    sys.stdout.buffer.write(answer + b"\n")  # Bytes, which need not be text.
    sys.stdout.buffer.flush()


def main():
    client = open_socket((sys.argv[1], int(sys.argv[2])))
    try:
        for line in sys.stdin.buffer:
            show(ask(client, line.rstrip(b"\n")))
    except OSError as error:  # Nobody listens there, or nobody reads what it prints.
        sys.exit(f"cannot go on: {error}")


if __name__ == "__main__":
    main()
