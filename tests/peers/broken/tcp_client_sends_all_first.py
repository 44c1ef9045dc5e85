"""Sends everything before it receives. The server cannot send what nobody receives, so it stops receiving,
and both wait for each other."""

from right import tcp_client


def exchange(connection):
    tcp_client.send(connection)
    while data := connection.recv(65_536):
        tcp_client.show(data)
        tcp_client.counts["received"] += len(data)


tcp_client.exchange = exchange
tcp_client.main()
