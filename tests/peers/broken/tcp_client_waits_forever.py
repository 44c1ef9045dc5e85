"""Waits for the server without a time limit."""

from right import tcp_client

exchange_any = tcp_client.exchange


def exchange(connection):
    connection.settimeout(None)
    exchange_any(connection)


tcp_client.exchange = exchange
tcp_client.main()
