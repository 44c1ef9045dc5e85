# The UDP server in Python's documentation of socketserver, where it answers in upper case and without the spaces
# around the words. Here it sends back what came, and the address is an argument. All else is as it stands there:
# https://docs.python.org/3.11/library/socketserver.html#socketserver-udpserver-example (Zero-Clause BSD license).
# judge --known asks it for our promises.
import socketserver
import sys

class MyUDPHandler(socketserver.BaseRequestHandler):
    """
    This class works similar to the TCP handler class, except that
    self.request consists of a pair of data and client socket, and since
    there is no connection the client address must be given explicitly
    when sending data back via sendto().
    """

    def handle(self):
        data = self.request[0]
        socket = self.request[1]
        print("{} wrote:".format(self.client_address[0]))
        print(data)
        socket.sendto(data, self.client_address)

if __name__ == "__main__":
    HOST, PORT = sys.argv[1], int(sys.argv[2])
    with socketserver.UDPServer((HOST, PORT), MyUDPHandler) as server:
        server.serve_forever()
