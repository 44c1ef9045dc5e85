"""Takes a reset for the end. It says that bytes are lost."""

import os

from right import tcp_client

receive_any = tcp_client.receive


def receive(connection, sending):
    try:
        receive_any(connection, sending)
    except ConnectionResetError:
        os._exit(0)


tcp_client.receive = receive
tcp_client.main()
