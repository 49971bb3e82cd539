//! gRPC, as much of it as one call takes: a message with its length in front, and a status behind the
//! answer.

use http::HeaderMap;

use super::collector::{Answer, Client, Failure, Taken, taken};
use crate::transport::{Length, Upstream as _};

/// The one method of the service that takes traces.
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Statuses after which the protocol lets a batch be sent again: cancelled, deadline exceeded, resource
/// exhausted, aborted, out of range, unavailable, data loss.
const PASSING: [u32; 7] = [1, 4, 8, 10, 11, 14, 15];

/// Has a batch taken.
pub(super) async fn export(client: &Client, batch: &[u8]) -> Result<Taken, Failure> {
    let length = u32::try_from(batch.len());
    let length = length.map_err(|_| Failure::refused("a batch is too long"))?;
    let mut message = Vec::with_capacity(PREFIX + batch.len());
    message.push(0);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(batch);
    let fields: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
    let answer = client.ask(METHOD, &fields, &message, Length::Unknown);
    let Answer { mut up, body } = answer.await?;
    let status = up.head().status();
    if status != 200 {
        let why = format!("it answered with status {status}");
        return Err(match status {
            429 | 502..=504 => Failure::passing(why),
            _ => Failure::refused(why),
        });
    }
    let in_head = up.head().get("grpc-status").map(<[u8]>::to_vec);
    let in_head = in_head.map(|code| (code, up.head().get("grpc-message").map(<[u8]>::to_vec)));
    let told = match in_head {
        Some(told) => Some(told),
        None => {
            let behind = up.trailers().await.map_err(Failure::passing)?;
            behind.and_then(|fields| of(&fields))
        }
    };
    let (code, why) = told.ok_or_else(|| Failure::passing("it told no status of the call"))?;
    judge(&code, why.as_deref())?;
    Ok(taken(body.get(PREFIX..).unwrap_or_default()))
}

fn of(fields: &HeaderMap) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let get = |name| fields.get(name).map(|value| value.as_bytes().to_vec());
    Some((get("grpc-status")?, get("grpc-message")))
}

fn judge(code: &[u8], why: Option<&[u8]>) -> Result<(), Failure> {
    let code = str::from_utf8(code).ok().and_then(|code| code.parse().ok());
    let Some(code) = code else {
        return Err(Failure::refused("its status is no number"));
    };
    let why = String::from_utf8_lossy(why.unwrap_or_default());
    let why = format!("it answered with gRPC status {code} {why}");
    match code {
        0 => Ok(()),
        code if PASSING.contains(&code) => Err(Failure::passing(why)),
        _ => Err(Failure::refused(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_it_is_worth_while_to_try_again() {
        assert!(judge(b"0", None).is_ok());
        assert!(!judge(b"14", Some(b"later")).unwrap_err().is_final);
        assert!(judge(b"3", None).unwrap_err().is_final);
        assert!(judge(b"x", None).unwrap_err().is_final);
    }
}
