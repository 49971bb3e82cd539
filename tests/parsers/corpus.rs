//! Requests that were used to smuggle another one past a proxy, and their relatives.

/// What it is, and its bytes. Each is refused with 400 as it stands.
pub(crate) const SMUGGLING: &[(&str, &str)] = &[
    (
        "CL.TE",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        "TE.CL",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1f\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE, the second unknown",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "TE.TE, in a list",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "TE.TE, with a control byte",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "TE.TE, in quotes",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE, on a folded line",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE, behind a bare LF",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE, behind a bare CR",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.0, in HTTP/1.0",
        "POST /mcp HTTP/1.0\r\nHost: 127.0.0.1:8080\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "0.CL, with a space before the colon",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length : 30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "0.CL, with a tab before the colon",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length\t: 30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "0.CL, on a folded line",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX: y\r\n Content-Length: 30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "0.CL, behind a space on the first line",
        "POST /mcp HTTP/1.1\r\n Content-Length: 30\r\nHost: 127.0.0.1:8080\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "CL.0, empty",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length:\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "CL.CL, different",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "CL.CL, the same",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 30\r\nContent-Length: 30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "CL.CL, in a list",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 0, 30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "CL with a sign",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: +30\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "CL over 64 bits",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 18446744073709551616\r\n\r\n",
    ),
    (
        "early bytes behind an upgrade",
        "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a target on two lines",
        "POST /mcp\rX HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a fragment",
        "POST /mcp#/x HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a request line of four words",
        "POST /mcp /two HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an authority that Host contradicts",
        "POST http://a/mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an authority with a user",
        "POST http://127.0.0.1:8080@a/mcp HTTP/1.1\r\nHost: 127.0.0.1:8080@a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an authority and an empty Host",
        "POST http://127.0.0.1:8080/mcp HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "CONNECT to a path, and what others would tunnel",
        "CONNECT /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a field that Connection takes away",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close, mcp-method\r\nMcp-Method: ping\r\nContent-Length: 0\r\n\r\n",
    ),
];

/// Chunks that two readers could take apart differently: what it is, and the body.
pub(crate) const CHUNKS: &[(&str, &str)] = &[
    ("a size with a sign", "+2\r\n{}\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x2\r\n{}\r\n0\r\n\r\n"),
    ("a space before the size", " 2\r\n{}\r\n0\r\n\r\n"),
    ("a space behind the size", "2 \r\n{}\r\n0\r\n\r\n"),
    ("a tab behind the size", "2\t\r\n{}\r\n0\r\n\r\n"),
    (
        "a size over 64 bits",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
    ),
    ("a bare LF behind the size", "2\n{}\r\n0\r\n\r\n"),
    ("a bare CR behind the size", "2\r{}\r\n0\r\n\r\n"),
    ("a bare LF in an extension", "2;\n\r\n{}\r\n0\r\n\r\n"),
    ("a NUL in an extension", "2;\0\r\n{}\r\n0\r\n\r\n"),
    ("a bare LF behind the data", "2\r\n{}\n0\r\n\r\n"),
    (
        "two bytes of another kind behind the data",
        "2\r\n{}XX0\r\n\r\n",
    ),
    ("data that is longer than its size", "1\r\n{}\r\n0\r\n\r\n"),
    ("no size", "\r\n{}\r\n0\r\n\r\n"),
    ("an extension without a size", ";a\r\n{}\r\n0\r\n\r\n"),
    ("an end of bare LFs", "2\r\n{}\r\n0\n\n"),
    (
        "a trailer that ends in a bare LF",
        "2\r\n{}\r\n0\r\nX: y\n\r\n",
    ),
    ("a bare CR in a trailer", "2\r\n{}\r\n0\r\nX: \ry\r\n\r\n"),
];
