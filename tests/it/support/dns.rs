//! A name server with a script, over UDP on loopback: A and SRV records of the names it is told.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What a name has.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    A(Ipv4Addr),
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: &'static str,
    },
}

type Names = Arc<Mutex<HashMap<String, Vec<Record>>>>;

/// A name server. It knows nothing until it is told.
pub(crate) struct NameServer {
    address: SocketAddr,
    names: Names,
    task: JoinHandle<()>,
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let socket = socket.expect("a socket");
        let address = socket.local_addr().expect("its address");
        let names = Names::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&names)));
        Self {
            address,
            names,
            task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a name these records; none is a name that does not exist.
    pub(crate) fn set(&self, name: &str, records: &[Record]) {
        let mut names = self.names.lock().expect("not poisoned");
        match records {
            [] => names.remove(name),
            records => names.insert(name.to_owned(), records.to_vec()),
        };
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, names: Names) {
    let mut bytes = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
        let answer = answer(&bytes[..length], &names.lock().expect("not poisoned"));
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a question (RFC 1035, section 4.1); nothing to what is none.
fn answer(asked: &[u8], names: &HashMap<String, Vec<Record>>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*asked.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(asked.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let question = asked.get(12..at + 4)?;
    let kind = u16::from_be_bytes([*asked.get(at)?, *asked.get(at + 1)?]);
    let known = names.get(&labels.join("."));
    let records = known.map(Vec::as_slice).unwrap_or_default();
    let data: Vec<Vec<u8>> = records.iter().filter_map(|r| data(r, kind)).collect();
    let code: u8 = if known.is_none() { 3 } else { 0 };
    let count = u8::try_from(data.len()).expect("a few records");
    let mut answer = asked.get(..2)?.to_vec();
    answer.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    for data in data {
        // The name of the question, the kind, class IN, a second to live.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 1]);
        answer.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

fn data(record: &Record, kind: u16) -> Option<Vec<u8>> {
    match (record, kind) {
        (Record::A(ip), 1) => Some(ip.octets().to_vec()),
        (
            Record::Srv {
                priority,
                weight,
                port,
                target,
            },
            33,
        ) => {
            let mut data = Vec::new();
            for number in [priority, weight, port] {
                data.extend(number.to_be_bytes());
            }
            for label in target.split('.') {
                data.push(u8::try_from(label.len()).expect("short"));
                data.extend(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        _ => None,
    }
}
