"""Waits for the echo without a time limit. If a datagram is lost, it waits forever."""

from right import udp_client


def ask(client, message):
    client.send(message)
    while True:
        answer = udp_client.receive(client)
        if udp_client.is_echo(answer, message):
            return answer


udp_client.ask = ask
udp_client.main()
