"""Prints what comes as text. Bytes that are no UTF-8 become question marks, and so do letters that come in
two pieces."""

from right import tcp_client


def show(data):
    print(data.decode(errors="replace"), end="", flush=True)


tcp_client.show = show
tcp_client.main()
