"""Decodes what comes as text. Bytes that are no UTF-8 become question marks."""

from right import udp_server

answer_bytes = udp_server.answer


def answer(server, data, peer):
    answer_bytes(server, data.decode(errors="replace").encode(), peer)


udp_server.answer = answer
udp_server.main()
