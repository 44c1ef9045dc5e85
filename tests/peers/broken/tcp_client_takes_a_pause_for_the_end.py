"""Takes a pause of 20 ms for the end. What TCP carries may pause anywhere."""

import socket

from right import tcp_client


def receive(connection, sending):
    data = connection.recv(65_536)
    sending.join()  # Until then, a pause may be its own.
    connection.settimeout(0.02)
    try:
        while data:
            tcp_client.show(data)
            tcp_client.counts["received"] += len(data)
            data = connection.recv(65_536)
    except socket.timeout:
        pass


tcp_client.receive = receive
tcp_client.main()
