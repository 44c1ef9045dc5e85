"""Sends stdin or messages, and prints what comes back meanwhile: the twin of tcp-client.

    $ python3 tcp_client.py --addr 127.0.0.1:7007 hello
    hello

It differs in which half is the thread, and so it learns that a server has gone only when it sends to
it, and in its time limit, which is for all that is still to come when everything is sent.
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
    """Sends and receives at once. Whoever sends all first waits for ever if it is much: the server waits
    until somebody reads what it has echoed, and we wait until it reads on."""
    counts = {"received": 0}
    with socket.create_connection(args.addr, args.timeout) as connection:
        connection.settimeout(None)  # There is no hurry while there is still something to send.
        receiving = threading.Thread(target=receive, args=(connection, counts), daemon=True)
        receiving.start()
        sent = send(connection, args.messages)
        receiving.join(args.timeout)
    return sent, counts["received"]


def send(connection, messages):
    """Sends all, half-closes to say so, and returns how many bytes it was."""
    lines = (os.fsencode(message) + b"\n" for message in messages)
    # read1 returns what is there: a line that is typed is sent at once.
    sent = 0
    for data in lines if messages else iter(lambda: sys.stdin.buffer.read1(65535), b""):
        connection.sendall(data)
        sent += len(data)
    connection.shutdown(socket.SHUT_WR)
    return sent


def receive(connection, counts):
    """Prints what comes as soon as it comes, until the server closes."""
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
