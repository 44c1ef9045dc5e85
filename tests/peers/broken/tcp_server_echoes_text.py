"""Decodes what comes as text. Bytes that are no UTF-8 become question marks, and so do letters that come
in two pieces."""

from right import tcp_server


def send(connection, data):
    connection.sendall(data.decode(errors="replace").encode())


tcp_server.send = send
tcp_server.main()
