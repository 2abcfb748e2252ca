//! When an idle connection over TLS may serve another request.

use std::rc::Rc;

use super::*;
use crate::clock::Stopwatch;
use crate::proxy::stream::Stream;
use crate::proxy::timer::Timers;
use crate::proxy::wire::{Buffer, FIRST, Wire};

/// Milliseconds that nobody should need.
const LONG: u64 = 10_000;

/// Both ends of a connection.
async fn pair(authority: &Authority) -> (Wire, tokio_rustls::server::TlsStream<TcpStream>) {
    let server = ServerTls::load(authority.server(ClientCertificates::Ignored)).unwrap();
    let client = ClientTls::new(&authority.rule(), Protocol::Http1).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        server.acceptor().accept(stream).await.unwrap()
    };
    let connect = async {
        let stream = TcpStream::connect(address).await.unwrap();
        client.connect(stream, "localhost").await.unwrap()
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    let timers = Rc::new(Timers::new(Stopwatch::start()));
    let wire = Wire::new(Stream::Endpoint(Box::new(connected)), &timers);
    (wire, accepted)
}

#[tokio::test]
async fn what_was_decrypted_with_the_answer_is_not_taken_for_silence() {
    let authority = Authority::new();
    let (wire, mut endpoint) = pair(&authority).await;
    // An answer that fills the buffer, and something unasked right behind it.
    endpoint.write_all(&vec![b'a'; FIRST]).await.unwrap();
    endpoint.write_all(b"unasked").await.unwrap();
    endpoint.flush().await.unwrap();
    let mut buffer = Buffer::new(&Rc::default());
    assert_eq!(wire.fill(&mut buffer, FIRST, LONG).await, Ok(FIRST));
    // It was all taken from the socket.
    assert!(wire.socket_is_quiet());
    assert!(!wire.is_quiet());
    buffer.consume(FIRST);
    assert_eq!(wire.fill(&mut buffer, FIRST, LONG).await, Ok(7));
    assert_eq!(buffer.data(), b"unasked");
    assert!(wire.is_quiet());
}

#[tokio::test]
async fn a_goodbye_that_was_read_with_the_answer_is_not_taken_for_silence() {
    let authority = Authority::new();
    let (wire, mut endpoint) = pair(&authority).await;
    endpoint.write_all(b"answer").await.unwrap();
    endpoint.get_mut().1.send_close_notify();
    endpoint.flush().await.unwrap();
    let mut buffer = Buffer::new(&Rc::default());
    assert_eq!(wire.fill(&mut buffer, FIRST, LONG).await, Ok(6));
    assert!(wire.socket_is_quiet());
    assert!(!wire.is_quiet());
}
