"""Takes the next datagram for the echo. It may be a second echo of the message before."""

from right import udp_client


def is_echo(answer, message):
    return True


udp_client.is_echo = is_echo
udp_client.main()
