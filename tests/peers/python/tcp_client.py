"""Sends messages or stdin and, at the same time, prints what comes back: the twin of tcp-client.

    $ python3 tcp_client.py --addr 127.0.0.1:7007 hello
    hello

Unlike tcp-client, it receives in the second thread, so it notices that a server has gone only when it
sends something. Once everything is sent, its time limit applies to all that is still to come.
"""

import argparse
import os
import socket
import sys
import threading


def host_and_port(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def exchange(args):
    """Sends and receives at the same time. A client that first sends everything can wait forever: the
    server stops reading when nobody takes its echoes, and then the client's own write cannot go on."""
    counts = {"received": 0}
    with socket.create_connection(args.addr, args.timeout) as connection:
        connection.settimeout(None)  # No time limit while there is something to send.
        receiving = threading.Thread(target=receive, args=(connection, counts), daemon=True)
        receiving.start()
        sent = send(connection, args.messages)
        receiving.join(args.timeout)
    return sent, counts["received"]


def send(connection, messages):
    """Sends everything, then half-closes. Returns how many bytes it sent."""
    lines = (os.fsencode(message) + b"\n" for message in messages)
    # read1 returns what is there, so a line is sent as soon as it is typed.
    sent = 0
    for data in lines if messages else iter(lambda: sys.stdin.buffer.read1(65535), b""):
        connection.sendall(data)
        sent += len(data)
    connection.shutdown(socket.SHUT_WR)
    return sent


def receive(connection, counts):
    """Prints bytes as soon as they arrive, until the server closes the connection."""
    try:
        while data := connection.recv(65535):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            counts["received"] += len(data)
    except OSError as error:
        print(f"cannot receive: {error}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="Send to an echo server over TCP.")
    parser.add_argument("--addr", type=host_and_port, default="127.0.0.1:7007", metavar="HOST:PORT")
    parser.add_argument("--timeout", type=float, default=5, metavar="SECS")
    parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="without any, stdin as it is")
    args = parser.parse_args()
    try:
        sent, received = exchange(args)
    except OSError as error:
        sys.exit("cannot talk to {}:{}: {}".format(*args.addr, error))
    if received < sent:
        sys.exit(f"cannot get all back: {received} of {sent} bytes came back")


if __name__ == "__main__":
    main()
