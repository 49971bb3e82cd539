//! The mock over real sockets, seen by the client side of the tool.

use tokio::sync::watch;

use super::*;
use crate::caller::Plan;
use crate::conn::Failure;
use crate::hist::Histogram;
use crate::line::Line;
use crate::mcp::{Speaker, discovered};
use crate::stream::{Delays, Ending, follow};

const PATIENCE: Duration = Duration::from_secs(5);

async fn mock(form: Form) -> (Plan, Arc<State>) {
    let state = Arc::new(State {
        name: "m".to_owned(),
        event_every: Duration::from_millis(10),
        form,
        sessions: Sessions::new(),
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let serving = state.clone();
    tokio::spawn(async move { serve(&listener, serving).await });
    let speaker = Speaker::new(url.parse().unwrap(), "echo".to_owned(), 100);
    (
        Plan::new(speaker, PATIENCE, None, Duration::ZERO, PATIENCE),
        state,
    )
}

#[tokio::test]
async fn calls_of_both_eras_are_answered_in_both_forms() {
    for form in [Form::Json, Form::Sse] {
        let (plan, state) = mock(form).await;
        let mut conn = plan.conn();
        let session = plan.open_session(&mut conn).await.unwrap();
        for (id, session) in [(1, Some(&session)), (2, None), (3, Some(&session))] {
            let reply = conn
                .exchange(&plan.speaker.call(session, id), PATIENCE)
                .await
                .unwrap();
            assert_eq!(plan.speaker.check(&reply, id), Ok(()));
        }
        let found = conn
            .exchange(&plan.speaker.discover(), PATIENCE)
            .await
            .unwrap();
        assert_eq!(discovered(&found), Ok(()));
        plan.close_session(&mut conn, &session).await.unwrap();
        assert_eq!(state.sessions.counts(), (0, 0));
        let gone = conn
            .exchange(&plan.speaker.call(Some(&session), 4), PATIENCE)
            .await
            .unwrap();
        assert_eq!(plan.speaker.check(&gone, 4), Err(Failure::Status(404)));
    }
}

#[tokio::test]
async fn events_flow_until_the_session_ends() {
    let (plan, state) = mock(Form::Json).await;
    let mut conn = plan.conn();
    let session = plan.open_session(&mut conn).await.unwrap();
    let get = plan.speaker.open_stream(&session);
    let (head, rest, stream) = plan.conn().open_stream(&get, PATIENCE).await.unwrap();
    assert_eq!((head.status, head.event_stream), (200, true));
    let second = conn.exchange(&get, PATIENCE).await.unwrap();
    assert_eq!(second.head.status, 409);

    let delays = Arc::new(Delays {
        histogram: std::sync::Mutex::new(Histogram::new()),
        counting: true.into(),
    });
    let (_stop, stopped) = watch::channel(false);
    let following = tokio::spawn(follow(stream, head.framing, rest, delays.clone(), stopped));
    while crate::caller::locked(&delays.histogram).summary().count < 3 {
        tokio::task::yield_now().await;
    }
    plan.close_session(&mut conn, &session).await.unwrap();
    let (tally, ending) = following.await.unwrap();
    assert!(tally.events >= 3 && tally.missing == 0, "{tally:?}");
    assert_eq!(ending, Ending::Early);
    assert_eq!(state.sessions.counts(), (0, 0));
}

#[tokio::test]
async fn a_stream_ends_with_its_connection_and_can_be_opened_again() {
    let (plan, state) = mock(Form::Json).await;
    let mut conn = plan.conn();
    let session = plan.open_session(&mut conn).await.unwrap();
    let get = plan.speaker.open_stream(&session);
    for _ in 0..3 {
        let opened = plan.conn().open_stream(&get, PATIENCE).await;
        drop(opened.unwrap());
        while state.sessions.counts() != (1, 0) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_a_proxy_could_get_wrong_is_refused() {
    let (plan, _) = mock(Form::Json).await;
    let mut conn = plan.conn();
    let session = plan.open_session(&mut conn).await.unwrap();
    let stateless = String::from_utf8(plan.speaker.call(None, 1)).unwrap();
    let in_session = String::from_utf8(plan.speaker.call(Some(&session), 1)).unwrap();
    for (request, status) in [
        (stateless.replace("Mcp-Name: echo", "Mcp-Name: other"), 400),
        (stateless.replace("Mcp-Name: echo\r\n", ""), 400),
        (
            stateless.replace("Mcp-Method: tools/call", "Mcp-Method: ping"),
            400,
        ),
        (
            stateless.replace("MCP-Protocol-Version: 2026", "MCP-Protocol-Version: 2099"),
            400,
        ),
        (in_session.replace("Mcp-Session-Id", "Other"), 400),
        (in_session.replace(&session.id, "0123"), 404),
        (in_session.replace("POST /mcp", "POST /other"), 404),
        (in_session.replace("POST /mcp", "PUT /mcp"), 405),
    ] {
        let reply = conn.exchange(request.as_bytes(), PATIENCE).await.unwrap();
        assert_eq!(reply.head.status, status, "{request}");
    }
}

#[test]
fn only_intervals_and_names_within_bounds_are_taken() {
    assert_eq!(interval("10ms"), Ok(Duration::from_millis(10)));
    assert!(interval("9ms").is_err() && interval("601s").is_err());
    assert!(name("a-1").is_ok() && name("").is_err() && name("a\"b").is_err());
}

#[tokio::test]
async fn a_socket_is_a_session_that_ends_with_it() {
    let (plan, state) = mock(Form::Json).await;
    let mut socket = plan.socket();
    socket.connect(&plan.speaker, PATIENCE).await.unwrap();
    assert_eq!((socket.opened, state.sessions.counts()), (1, (1, 0)));
    let mut line = Line::Socket(socket);
    for id in 1..=3 {
        assert_eq!(line.call(&plan, None, id).await, Ok(()));
    }
    line.end(&plan, None).await;
    while state.sessions.counts() != (0, 0) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fresh_line_opens_a_connection_and_leaves_no_session() {
    let (plan, state) = mock(Form::Sse).await;
    let mut line = Line::Fresh(plan.conn());
    for id in 1..=3 {
        assert_eq!(line.call(&plan, None, id).await, Ok(()));
        // None beyond the one that each call asks for.
        assert_eq!(line.reconnects(id), 0);
        assert_eq!(state.sessions.counts(), (0, 0));
    }
    assert_eq!(line.reconnects(0), 3);
}
