"""Takes an empty datagram for the end, as it would be on a stream."""

from right import udp_server


def serve(server):
    while True:
        data, peer = udp_server.receive(server)
        if not data:
            break
        if udp_server.may_be_answered(server, peer):
            udp_server.answer(server, data, peer)


udp_server.serve = serve
udp_server.main()
