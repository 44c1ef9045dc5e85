"""Sends messages and waits for each to come back: the twin of udp-client.

    $ python3 udp_client.py --addr 127.0.0.1:7007 hello
    hello

Unlike udp-client, it uses only IPv4 and prints only the answers.
"""

import argparse
import os
import socket
import sys
import time


def host_and_port(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def ask(server, message, args):
    """Sends the message again if no answer comes, because the network can lose the message or the answer."""
    # connect sends nothing. From now on the kernel drops datagrams from other senders, and the next
    # call fails if the server's host says that nobody listens.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(server)
        for _ in range(args.attempts):
            client.send(message)
            if came_back(client, message, time.monotonic() + args.timeout):
                return
    raise socket.timeout(f"no answer in {args.attempts} attempts of {args.timeout}s")


def came_back(client, message, deadline):
    """Waits for the echo until the deadline. Other datagrams do not count."""
    while (left := deadline - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            if client.recv(65535) == message:
                return True
        except socket.timeout:
            pass
    return False


def main():
    parser = argparse.ArgumentParser(description="Send datagrams and wait for each to come back.")
    parser.add_argument("--addr", type=host_and_port, default="127.0.0.1:7007", metavar="HOST:PORT")
    parser.add_argument("--timeout", type=float, default=1, metavar="SECS")
    parser.add_argument("--attempts", type=int, default=3, metavar="N")
    parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="without any, each line of stdin")
    args = parser.parse_args()
    lines = (line[:-1] if line.endswith(b"\n") else line for line in sys.stdin.buffer)
    for message in map(os.fsencode, args.messages) if args.messages else lines:
        try:
            ask(args.addr, message, args)
        except OSError as error:
            sys.exit("cannot get an answer from {}:{}: {}".format(*args.addr, error))
        sys.stdout.buffer.write(message + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
