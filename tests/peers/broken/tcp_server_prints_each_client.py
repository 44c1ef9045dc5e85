"""Prints a line for each client. When nobody reads its output any more, print raises, and the server ends."""

import sys

from right import tcp_server

hand_over_quietly = tcp_server.hand_over
is_read = True


def hand_over(connection):
    hand_over_quietly(connection)
    if is_read:
        print("a client", flush=True)


try:
    print("listening", flush=True)
except OSError:
    is_read = False
    sys.stdout = None
tcp_server.hand_over = hand_over
tcp_server.main()
