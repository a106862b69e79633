//! The end: what is under way is finished, and nothing holds it up.

use std::future::{pending, ready};

use super::*;
use crate::serve::Left;

const OPEN: &str = "{ listen: '127.0.0.1:0', stores: write }";

#[tokio::test]
async fn what_is_under_way_is_answered_and_nothing_new_is_taken() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(request(address, "GET /test/wait", &[]).as_bytes()).await.unwrap();
    place.waiting.notified().await;
    let draining = tokio::spawn(server.drain(pending()));
    settle().await;
    assert!(TcpStream::connect(address).await.is_err(), "the socket is gone");
    assert!(!draining.is_finished());
    place.go.notify_one();
    let answer = read(&mut busy).await;
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.ok(), "waited");
    assert_eq!(draining.await.unwrap(), Left::default());
}

/// Of the kinds that held up the end of other servers for ever.
#[tokio::test]
async fn connections_without_a_request_do_not_hold_up_the_end() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    say(&mut idle, request(address, "GET /healthz", &[])).await.ok();
    let draining = tokio::spawn(server.drain(pending()));
    assert_eq!(draining.await.unwrap(), Left::default());
    until_closed(&mut idle).await;
}

#[tokio::test]
async fn half_a_request_ends_with_its_deadline_or_the_cut() {
    for cut in [false, true] {
        let place = Place::new();
        let (server, address) = place.serve(OPEN).await;
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost").await.unwrap();
        settle().await;
        if cut {
            let left = server.drain(ready(())).await;
            assert_eq!((left.requests, left.connections), (0, 1));
        } else {
            let draining = tokio::spawn(server.drain(pending()));
            place.pass(Duration::from_secs(11)).await;
            assert_eq!(draining.await.unwrap(), Left::default());
        }
        until_closed(&mut half).await;
    }
}

#[tokio::test]
async fn it_says_what_was_cut_off() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request(address, "GET /test/wait", &[]).as_bytes()).await.unwrap();
        place.waiting.notified().await;
        busy.push(stream);
    }
    let (cut, asked) = tokio::sync::oneshot::channel::<()>();
    let draining = tokio::spawn(server.drain(async { drop(asked.await) }));
    settle().await;
    assert!(!draining.is_finished());
    cut.send(()).unwrap();
    let left = draining.await.unwrap();
    assert_eq!((left.requests, left.connections), (2, 2));
    for mut stream in busy {
        until_closed(&mut stream).await;
    }
}
