"""A DNS server for which every name is 127.0.0.1."""

import socket
import struct

A, IN = 1, 1
QUESTION, AN_ANSWER = 12, 0xC00C

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    query, client = server.recvfrom(512)
    end = query.index(b"\0", QUESTION) + 5
    (kind,) = struct.unpack("!H", query[end - 4:end - 2])
    answer = b""
    if kind == A:
        answer = struct.pack("!HHHIH4s", AN_ANSWER, A, IN, 60, 4, socket.inet_aton("127.0.0.1"))
    head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if answer else 0, 0, 0)
    server.sendto(head + query[QUESTION:end] + answer, client)
