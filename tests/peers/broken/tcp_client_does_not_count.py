"""Ends with 0 when the server closes, without a look at how much has come back."""

from right import tcp_client

receive_any = tcp_client.receive


def receive(connection, sending):
    receive_any(connection, sending)
    tcp_client.counts["received"] = tcp_client.counts["sent"]


tcp_client.receive = receive
tcp_client.main()
