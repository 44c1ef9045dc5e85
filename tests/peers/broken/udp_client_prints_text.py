"""Prints the echo as text. Bytes that are no UTF-8 become question marks."""

from right import udp_client


def show(answer):
    print(answer.decode(errors="replace"), flush=True)


udp_client.show = show
udp_client.main()
