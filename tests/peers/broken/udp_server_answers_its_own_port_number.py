"""Answers a peer with its own port number, which may be a second one of these servers: they never stop."""

from right import udp_server


def may_be_answered(server, peer):
    return peer[1] >= 1024


udp_server.may_be_answered = may_be_answered
udp_server.main()
