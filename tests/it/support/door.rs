//! Doors: what stands between a client and the program, or between the program and an endpoint, and
//! passes on every byte. One may announce its clients by the PROXY protocol, or take off such an
//! announcement and remember it, and either side of it may be a unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Where a door leads to.
#[derive(Clone, Debug)]
pub(crate) enum Far {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What was announced for one connection: the client and where it has connected to, or nothing.
pub(crate) type Announced = Option<(SocketAddr, SocketAddr)>;

/// A door; dropped, it takes no more connections.
#[derive(Debug)]
pub(crate) struct Door {
    address: Option<SocketAddr>,
    announced: Arc<Mutex<Vec<Announced>>>,
    accepting: JoinHandle<()>,
}

impl Door {
    /// A port that leads there, and begins every connection with these bytes.
    pub(crate) async fn announcing(to: Far, header: &[u8]) -> Self {
        let header: Arc<[u8]> = header.into();
        Self::on_port(move |near| {
            let (to, header) = (to.clone(), Arc::clone(&header));
            async move { carry(near, &to, &header).await }
        })
        .await
    }

    /// A port that leads there and changes nothing.
    pub(crate) async fn plain(to: Far) -> Self {
        Self::announcing(to, b"").await
    }

    /// A port that takes an announcement off every connection.
    pub(crate) async fn taking_off(to: SocketAddr) -> Self {
        let announced: Arc<Mutex<Vec<Announced>>> = Arc::default();
        let notes = Arc::clone(&announced);
        let mut door = Self::on_port(move |mut near| {
            let notes = Arc::clone(&notes);
            async move {
                let (header, rest) = read_header(&mut near).await?;
                notes.lock().expect("no holder panics").push(header);
                carry(near, &Far::Tcp(to), &rest).await
            }
        })
        .await;
        door.announced = announced;
        door
    }

    /// A unix socket that leads there.
    pub(crate) fn on_socket(path: &Path, to: SocketAddr) -> Self {
        let listener = UnixListener::bind(path).expect("a socket in our own directory");
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(async move { carry(near, &Far::Tcp(to), b"").await });
            }
        });
        Self {
            address: None,
            announced: Arc::default(),
            accepting,
        }
    }

    async fn on_port<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serving(listener, serve)
    }

    /// The port of this listener, which leads there.
    pub(crate) fn on_listener(listener: TcpListener, to: Far) -> Self {
        Self::serving(listener, move |near| {
            let to = to.clone();
            async move { carry(near, &to, b"").await }
        })
    }

    fn serving<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(serve(near));
            }
        });
        Self {
            address: Some(address),
            announced: Arc::default(),
            accepting,
        }
    }

    /// Its port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("a door on a port")
    }

    /// What was announced, connection by connection.
    pub(crate) fn announced(&self) -> Vec<Announced> {
        self.announced.lock().expect("no holder panics").clone()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry<N>(mut near: N, to: &Far, first: &[u8]) -> io::Result<()>
where
    N: AsyncRead + AsyncWrite + Unpin,
{
    match to {
        Far::Tcp(address) => {
            let mut far = TcpStream::connect(address).await?;
            far.write_all(first).await?;
            copy_bidirectional(&mut near, &mut far).await?;
        }
        Far::Unix(path) => {
            let mut far = UnixStream::connect(path).await?;
            far.write_all(first).await?;
            copy_bidirectional(&mut near, &mut far).await?;
        }
    }
    Ok(())
}

/// The announcement at the beginning of a connection, and what came behind it.
async fn read_header(near: &mut TcpStream) -> io::Result<(Announced, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if near.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match ProxyHeader::parse(&bytes, ParseConfig::default()) {
            Ok((header, length)) => {
                let pair = header.proxied_address();
                let announced = pair.map(|pair| (pair.source, pair.destination));
                return Ok((announced, bytes[length..].to_vec()));
            }
            Err(proxy_header::Error::BufferTooShort) => {}
            Err(error) => panic!("no header of the PROXY protocol: {error}"),
        }
    }
}
