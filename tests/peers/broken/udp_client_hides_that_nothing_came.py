"""Ends with 0, although no answer has come."""

import sys

from right import udp_client

ask_any = udp_client.ask


def ask(client, message):
    try:
        return ask_any(client, message)
    except SystemExit:
        sys.exit(0)


udp_client.ask = ask
udp_client.main()
