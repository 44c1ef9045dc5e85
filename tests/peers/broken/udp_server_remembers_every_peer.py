"""Keeps a socket for each peer. Nobody says when a peer has gone, so there are more and more."""

from right import udp_server

sockets = {}
answer_once = udp_server.answer


def answer(server, data, peer):
    if peer not in sockets:
        sockets[peer] = server.dup()
    answer_once(sockets[peer], data, peer)


udp_server.answer = answer
udp_server.main()
