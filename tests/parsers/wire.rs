//! Bytes that arrive in pieces, and what one side or the other has made of them.

use std::cell::OnceCell;
use std::future::Future;

use pingora::protocols::Stream;
use tidegate::transport::Headers;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// Runs `future` in this thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| {
        let make = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        runtime.get_or_init(make).block_on(future)
    })
}

/// A stream on which `bytes` arrive, in pieces that end at `cuts`, and which ends behind them. What
/// is written to it is taken and forgotten.
pub(crate) fn arriving(bytes: &[u8], cuts: &[usize]) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        let mut from = 0;
        for cut in cuts {
            if far.write_all(&bytes[from..cut]).await.is_err() {
                return;
            }
            from = cut;
            // Whoever reads has its turn now.
            tokio::task::yield_now().await;
        }
        let _ = far.shutdown().await;
        let _ = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
    });
    near
}

/// What is still to come on a stream.
pub(crate) async fn rest(mut stream: Stream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

/// Fields by name in the order in which the names first appear, since Pingora keeps no other.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

fn grouped(fields: Fields) -> Fields {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in &fields {
        let name = name.to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut grouped = Fields::new();
    for name in names {
        let same = fields
            .iter()
            .filter(|(other, _)| name.eq_ignore_ascii_case(other));
        grouped.extend(same.cloned());
    }
    grouped
}

/// The fields of one of our heads.
pub(crate) fn our_fields(head: &impl Headers) -> Fields {
    let mut fields = Fields::new();
    head.each(&mut |name, value| {
        let name = String::from_utf8(name.as_bytes().to_vec()).unwrap();
        fields.push((name, value.to_vec()));
    });
    grouped(fields)
}

/// The fields of one of Pingora's.
pub(crate) fn their_fields<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Fields {
    let fields = fields.map(|(name, value)| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        (name, value.to_vec())
    });
    grouped(fields.collect())
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Where its framing says.
    Whole,
    /// The framing is not valid.
    Broken,
    /// The connection ended first.
    Cut,
}

/// A message as one side has read it.
#[derive(Debug)]
pub(crate) struct Message {
    /// Method and target, or the status.
    pub(crate) line: [String; 2],
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
    /// What lies behind it, where that can be told.
    pub(crate) behind: Option<Vec<u8>>,
    /// Another message may follow.
    pub(crate) keeps: bool,
}

/// What we have read is what Pingora has read.
pub(crate) fn assert_agree(ours: &Message, theirs: &Message) {
    assert_eq!(ours.line, theirs.line);
    assert_eq!(ours.fields, theirs.fields);
    match ours.end {
        // The framing of chunks is where Pingora allows more; up to there both have read the same.
        End::Broken => {
            let both = ours.body.len().min(theirs.body.len());
            assert_eq!(ours.body[..both], theirs.body[..both]);
        }
        End::Whole | End::Cut => {
            assert_eq!(ours.body, theirs.body);
            assert_eq!(ours.end, theirs.end);
        }
    }
    if ours.end == End::Whole && theirs.behind.is_some() {
        assert_eq!(ours.behind, theirs.behind);
    }
}
