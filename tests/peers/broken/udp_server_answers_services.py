"""Answers ports below 1024, which may be other services that answer everything: they never stop."""

from right import udp_server


def may_be_answered(server, peer):
    return peer[1] != 0 and peer[1] != server.getsockname()[1]


udp_server.may_be_answered = may_be_answered
udp_server.main()
