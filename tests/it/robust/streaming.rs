//! Bodies on their way: as they come, in both directions, with their trailers, at the receiver's pace.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::{GET, OK, echo_chunks, endings, one_arm, read_head};
use crate::harness::upstream::Upstream;

fn exactly(reader: &mut BufReader<TcpStream>, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (next, gate) = mpsc::channel::<u32>();
    let gate = std::sync::Mutex::new(gate);
    let upstream = Upstream::behaving(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        while let Ok(number) = gate.lock().unwrap().recv() {
            let event = format!("data: {number:05}\n\n");
            stream
                .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
                .unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    // The head does not wait for the first event either.
    let (status, headers) = client.receive_head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-type".into(), "text/event-stream".into())));
    for number in 0..50 {
        next.send(number).unwrap();
        let event = client.receive_chunk().unwrap();
        assert_eq!(event, format!("data: {number:05}\n\n").as_bytes());
    }
    drop(next);
    assert_eq!(client.receive_chunk(), None);
    assert_eq!(endings(&proxy, 1), ["answered"]);
}

#[test]
fn both_bodies_flow_at_the_same_time() {
    let upstream = echo_chunks();
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 200);
    for round in 0..20 {
        let chunk = format!("round {round:04}");
        client.raw(format!("a\r\n{chunk}\r\n").as_bytes());
        assert_eq!(client.receive_chunk().unwrap(), chunk.as_bytes());
    }
    client.raw(b"0\r\n\r\n");
    assert_eq!(client.receive_chunk(), None);
    assert_eq!(endings(&proxy, 1), ["answered"]);
}

#[test]
fn trailers_pass_both_ways() {
    let (told, got) = mpsc::channel();
    let upstream = Upstream::connections(move |_, stream| {
        let mut reader = BufReader::new(stream);
        let mut request = read_head(&mut reader).unwrap();
        assert_eq!(exactly(&mut reader, 10), b"5\r\nhello\r\n");
        request.push_str(&read_head(&mut reader).unwrap());
        told.send(request).unwrap();
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 123\r\nx-other: 4\r\ncontent-length: 9\r\n\r\n")
            .unwrap();
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\ntrailer: x-check\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-check: abc\r\ntransfer-encoding: evil\r\n\r\n");
    let (status, _) = client.receive_head().unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        String::from_utf8(client.rest()).unwrap(),
        "2\r\nok\r\n0\r\nx-sum: 123\r\nx-other: 4\r\n\r\n",
        "what frames a message is no trailer"
    );
    let request = got.recv().unwrap();
    assert!(request.ends_with("0\r\nx-check: abc\r\n\r\n"), "{request}");
    assert!(request.contains("te: trailers\r\n") || request.contains("TE: trailers\r\n"));
}

#[test]
fn an_answer_before_the_body_reaches_a_client_that_still_sends() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig";
    let leaves = Upstream::connections(|_, stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader).unwrap();
        reader.get_mut().write_all(ANSWER).unwrap();
    });
    let stays = Upstream::connections(|_, stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader).unwrap();
        reader.get_mut().write_all(ANSWER).unwrap();
        std::thread::park();
    });
    for upstream in [leaves, stays] {
        let proxy = one_arm("", "", &[upstream.address]);
        for _ in 0..3 {
            let mut client = proxy.client();
            client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 4194304\r\n\r\n");
            client.raw(&vec![b'x'; 4 << 20]);
            let answer = client.receive(false).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
        }
        assert_eq!(endings(&proxy, 3), ["answered"; 3]);
    }
}

#[test]
fn answers_without_a_body_end_whatever_their_heads_say() {
    let upstream = Upstream::behaving(|request, stream| {
        let answer: &[u8] = match request.header("x-do") {
            Some("head-chunked") => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            Some("head-length") => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
            Some("204") => b"HTTP/1.1 204 No Content\r\n\r\n",
            Some("304") => {
                b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 77\r\n\r\n"
            }
            _ => OK,
        };
        stream.write_all(answer).is_ok()
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    for _ in 0..3 {
        for (method, what, status, length) in [
            ("HEAD", "head-chunked", 200, None),
            ("HEAD", "head-length", 200, Some("1000")),
            ("GET", "204", 204, None),
            ("GET", "304", 304, Some("77")),
            ("GET", "", 200, Some("2")),
        ] {
            let answer = client
                .send(method, "/v1/stars", &[("x-do", what)], b"")
                .unwrap();
            assert_eq!(
                (answer.status, answer.header("content-length")),
                (status, length),
                "{what}"
            );
        }
    }
    assert_eq!(endings(&proxy, 15), ["answered"; 15]);
    // Our own answers know it, too.
    let answer = client.send("HEAD", "/nowhere", &[], b"").unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(client.get("/v1/stars").unwrap().text(), "{}");
}

#[test]
fn clients_of_http_1_0_get_what_they_understand() {
    let upstream = Upstream::behaving(|request, stream| {
        assert!(request.head.lines().next().unwrap().ends_with("HTTP/1.1"));
        let answer: &[u8] = if request.header("x-do") == Some("chunked") {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx-trailer: 1\r\n\r\n"
        } else {
            OK
        };
        stream.write_all(answer).is_ok()
    });
    let proxy = one_arm("", "", &[upstream.address]);
    // It ends after one answer, and need not have a host.
    let mut client = proxy.client();
    client.raw(b"GET /v1/stars HTTP/1.0\r\n\r\n");
    let answer = client.receive(false).unwrap();
    assert_eq!(
        (
            answer.status,
            answer.text().as_str(),
            answer.header("connection")
        ),
        (200, "{}", Some("close"))
    );
    assert_eq!(client.rest(), b"");
    // Unless it asks for more.
    let mut client = proxy.client();
    for _ in 0..2 {
        client.raw(b"GET /v1/stars HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        let answer = client.receive(false).unwrap();
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    // A body without a length ends with the connection.
    client.raw(b"GET /v1/stars HTTP/1.0\r\nconnection: keep-alive\r\nx-do: chunked\r\n\r\n");
    let answer = client.receive(false).unwrap();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.text(), "hello world");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    let upstream = Upstream::behaving(|request, stream| {
        let number = request.header("x-number").unwrap();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}"
        )
        .is_ok()
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    let all = (0..8).fold(String::new(), |all, number| {
        format!("{all}POST /v1/stars HTTP/1.1\r\nhost: a\r\nx-number: {number}\r\ncontent-length: 3\r\n\r\nabc")
    });
    client.raw(all.as_bytes());
    for number in 0..8 {
        let answer = client.receive(false).unwrap();
        assert_eq!(answer.text(), number.to_string());
    }
}

#[test]
fn large_bodies_arrive_whole_whatever_their_framing() {
    let upstream = Upstream::behaving(|request, stream| {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        if request.header("x-chunked").is_none() {
            head.extend(format!("content-length: {}\r\n\r\n", request.body.len()).bytes());
            return stream.write_all(&head).is_ok() && stream.write_all(&request.body).is_ok();
        }
        head.extend(b"transfer-encoding: chunked\r\n\r\n");
        stream.write_all(&head).unwrap();
        for (index, part) in request.body.chunks(70_001).enumerate() {
            // Small and large chunks, in turn.
            for part in part.chunks(if index % 2 == 0 { 70_001 } else { 997 }) {
                write!(stream, "{:x};x=y\r\n", part.len()).unwrap();
                stream.write_all(part).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for headers in [&[][..], &[("x-chunked", "1")]] {
        let mut client = proxy.client();
        let answer = client.send("POST", "/v1/stars", headers, &body).unwrap();
        assert!(answer.body == body, "{} bytes", answer.body.len());
        // The same in chunks.
        client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n");
        for (name, value) in headers {
            client.raw(format!("{name}: {value}\r\n").as_bytes());
        }
        client.raw(b"\r\n");
        for part in body.chunks(50_003) {
            client.raw(format!("{:x}\r\n", part.len()).as_bytes());
            client.raw(part);
            client.raw(b"\r\n");
        }
        client.raw(b"0\r\n\r\n");
        let answer = client.receive(false).unwrap();
        assert!(answer.body == body, "{} bytes", answer.body.len());
    }
}

/// Waits until a count stands still, and gives it.
fn standstill(count: &AtomicUsize) -> usize {
    let mut last = (0, 0);
    crate::harness::eventually("it stands still", || {
        std::thread::sleep(Duration::from_millis(50));
        let now = count.load(Ordering::Relaxed);
        last = if now == last.0 && now > 0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        (last.1 == 10).then_some(now)
    })
}

/// Bytes that sockets on a path may hold: some megabytes for each.
const IN_SOCKETS: usize = 48 << 20;

#[test]
fn a_slow_client_slows_its_endpoint() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let upstream = Upstream::behaving(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
            .unwrap();
        while stream.write_all(&vec![b'x'; 65_536]).is_ok() {
            count.fetch_add(65_536, Ordering::Relaxed);
        }
        false
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    assert!(standstill(&written) < IN_SOCKETS);
}

#[test]
fn a_slow_endpoint_slows_its_client() {
    let upstream = Upstream::connections(|_, _stream| std::thread::park());
    let proxy = one_arm("", "", &[upstream.address]);
    let mut stream = TcpStream::connect(proxy.proxy).unwrap();
    stream
        .write_all(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000000\r\n\r\n")
        .unwrap();
    stream.set_nonblocking(true).unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let done = Arc::new(AtomicUsize::new(0));
    let is_done = Arc::clone(&done);
    let writing = std::thread::spawn(move || {
        while is_done.load(Ordering::Relaxed) == 0 {
            match stream.write(&vec![b'x'; 65_536]) {
                Ok(length) => {
                    count.fetch_add(length, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(standstill(&written) < IN_SOCKETS);
    done.store(1, Ordering::Relaxed);
    writing.join().unwrap();
}
