// An echo server as the documentation of Go's net shows it, a goroutine for each connection, for tcp,
// udp, or unix with a path: a peer to measure ours beside, and no model. Go sets TCP_NODELAY by itself.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	switch os.Args[1] {
	case "udp":
		datagrams()
	case "unix":
		streams("unix", os.Args[2])
	default:
		streams("tcp", "127.0.0.1:0")
	}
}

func streams(network, addr string) {
	listener, err := net.Listen(network, addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func(c net.Conn) {
			io.Copy(c, c)
			c.Close()
		}(conn)
	}
}

func datagrams() {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", conn.LocalAddr())
	buffer := make([]byte, 65536)
	for {
		n, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			log.Fatal(err)
		}
		conn.WriteTo(buffer[:n], peer)
	}
}
