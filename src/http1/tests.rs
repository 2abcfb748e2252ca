use super::chunked::{ChunkError, Decoder, Step};
use super::field::{Known, known};
use super::head::{HeadError, Limits, Request, Response};
use super::*;

mod properties;

const LIMITS: Limits = Limits {
    fields: 120,
    bytes: 8_192,
};

fn parse(text: &str) -> Result<Option<Request>, HeadError> {
    let mut request = Request::default();
    let length = request.parse(text.as_bytes(), LIMITS)?;
    Ok(length.map(|_| request))
}

fn post(fields: &str) -> Result<Framing, HeadError> {
    let text = format!("POST /x HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    parse(&text).map(|request| request.unwrap().framing)
}

#[test]
fn a_request_is_taken_apart() {
    let request =
        parse("POST /a/b?c=d&e HTTP/1.1\r\nHost: x:1\r\nX-User-Id:  7 \r\nEmpty:\r\n\r\nbody")
            .unwrap()
            .unwrap();
    assert_eq!(request.method(), "POST");
    assert_eq!((request.path(), request.query()), ("/a/b", Some("c=d&e")));
    assert_eq!(request.host(), Some(&b"x:1"[..]));
    assert_eq!(request.fields.get(b"x-user-id"), Some(&b"7"[..]));
    assert_eq!(request.fields.get(b"empty"), Some(&b""[..]));
    assert_eq!(request.fields.get(b"x-user"), None);
    assert!(request.keeps_alive() && !request.wants_websocket());
}

#[test]
fn lines_are_copied_and_get_the_usual_form() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\nA: 1\r\nb:  2 \r\nC:3\r\nD: 4\r\nE: 5\r\nempty: \r\nnone:\r\nlast: 6\r\n\r\n";
    let mut request = parse(text).unwrap().unwrap();
    request.fields.push(b"f", b"7");
    let lines = |skip: &[u8]| {
        let mut out = Vec::new();
        request
            .fields
            .copy_lines(&mut out, |known, name| known != Known::Host && name != skip);
        String::from_utf8(out).unwrap()
    };
    let all = "A: 1\r\nb: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nempty: \r\nnone: \r\nlast: 6\r\nf: 7\r\n";
    assert_eq!(lines(b""), all);
    for line in all.lines() {
        let name = line.split(':').next().unwrap();
        assert_eq!(
            lines(name.as_bytes()),
            all.replace(&format!("{line}\r\n"), "")
        );
    }
}

#[test]
fn every_prefix_of_a_head_needs_more() {
    let text = "GET /a HTTP/1.1\r\nhost: a\r\naccept: */*\r\n\r\n";
    for end in 0..text.len() {
        assert!(parse(&text[..end]).unwrap().is_none(), "{end}");
    }
    assert!(parse(text).unwrap().is_some());
}

#[test]
fn the_absolute_form_is_split() {
    let request = parse("GET HTTP://a:80?x HTTP/1.1\r\nhost: a:80\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(request.authority(), Some("a:80"));
    assert_eq!((request.path(), request.query()), ("/", Some("x")));
    for target in ["*", "a:80", "x/y", "ftp://a/b", "/a#b"] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(parse(&text).unwrap_err(), HeadError::StartLine, "{target}");
    }
}

#[test]
fn framing_has_one_reading_or_none() {
    assert_eq!(post(""), Ok(Framing::Length(0)));
    assert_eq!(post("content-length: 0012\r\n"), Ok(Framing::Length(12)));
    assert_eq!(post("transfer-encoding: Chunked\r\n"), Ok(Framing::Chunked));
    for length in [
        "",
        "-1",
        "+5",
        "0x5",
        "5 5",
        "5,5",
        "18446744073709551621",
        "5\r\ncontent-length: 5",
    ] {
        let found = post(&format!("content-length: {length}\r\n"));
        assert_eq!(found, Err(HeadError::ContentLength), "{length}");
    }
    for coding in [
        "chunked, chunked",
        "gzip, chunked",
        "identity",
        "",
        "chunked\r\ntransfer-encoding: chunked",
    ] {
        let found = post(&format!("transfer-encoding: {coding}\r\n"));
        assert_eq!(found, Err(HeadError::Coding), "{coding}");
    }
    let both = post("content-length: 5\r\ntransfer-encoding: chunked\r\n");
    assert_eq!(both, Err(HeadError::LengthAndCoding));
    let old = parse("POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(old.unwrap_err(), HeadError::CodingInHttp10);
}

fn fields(count: usize) -> String {
    (0..count).fold(String::new(), |lines, number| {
        format!("{lines}x{number}: 1\r\n")
    })
}

#[test]
fn every_line_must_end_with_a_carriage_return() {
    let request = "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nempty:\r\nb: c \r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\na: b\r\nempty:\r\nb: c \r\n\r\n";
    assert!(parse(request).unwrap().is_some());
    let of_response = |text: &str| Response::default().parse(text.as_bytes(), false, LIMITS);
    assert!(of_response(response).unwrap().is_some());
    for (position, _) in request.match_indices("\r\n") {
        let mut text = request.to_owned();
        text.remove(position);
        assert_eq!(parse(&text).unwrap_err(), HeadError::LineEnd, "{text:?}");
    }
    for (position, _) in response.match_indices("\r\n") {
        let mut text = response.to_owned();
        text.remove(position);
        assert_eq!(
            of_response(&text).unwrap_err(),
            HeadError::LineEnd,
            "{text:?}"
        );
    }
    let mut bare = "GET / HTTP/1.1\n\r\n";
    assert_eq!(parse(bare).unwrap_err(), HeadError::LineEnd);
    bare = "GET / HTTP/1.1\r\n\n";
    assert_eq!(parse(bare).unwrap_err(), HeadError::LineEnd);
}

#[test]
fn odd_lines_are_refused() {
    let head = |lines: &str| parse(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n")).unwrap_err();
    for lines in [
        "a : b",
        "a: b\r\n c: d",
        "a: \x00",
        "a: b\rc",
        "no colon",
        ": x",
        "a: b\nc: d",
    ] {
        let error = head(lines);
        assert!(
            matches!(error, HeadError::Field | HeadError::LineEnd),
            "{lines:?} {error}"
        );
    }
    assert_eq!(
        parse("GET / HTTP/2.0\r\n\r\n").unwrap_err(),
        HeadError::Version
    );
    let many = fields(121);
    assert_eq!(head(many.trim_end()), HeadError::TooManyFields);
    let fits = fields(120);
    assert_eq!(
        parse(&format!("GET / HTTP/1.1\r\n{fits}\r\n"))
            .unwrap()
            .unwrap()
            .fields
            .len(),
        120
    );
    let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(8_192));
    assert_eq!(parse(&long).unwrap_err(), HeadError::TooLong);
    let long = format!("GET /{}", "b".repeat(8_192));
    assert_eq!(parse(&long).unwrap_err(), HeadError::TargetTooLong);
}

#[test]
fn responses_are_framed_by_status_and_method() {
    let framing = |text: &str, to_head| {
        let mut response = Response::default();
        response
            .parse(text.as_bytes(), to_head, LIMITS)
            .map(|_| response.framing)
    };
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", false),
        Ok(Framing::Length(3))
    );
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", true),
        Ok(Framing::Length(0))
    );
    assert_eq!(
        framing("HTTP/1.1 304 x\r\ncontent-length: 3\r\n\r\n", false),
        Ok(Framing::Length(0))
    );
    assert_eq!(
        framing("HTTP/1.1 200 \r\n\r\n", false),
        Ok(Framing::UntilClose)
    );
    assert_eq!(
        framing("HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n", false),
        Ok(Framing::Chunked)
    );
    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "200 OK\r\n\r\n",
    ] {
        assert!(framing(bad, false).is_err(), "{bad}");
    }
}

/// Decodes `input`, handed over in pieces of `piece` bytes: the body and whether it ended.
fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool), ChunkError> {
    let (mut decoder, mut body) = (Decoder::new(1_000), Vec::new());
    let (mut buffer, mut next) = (Vec::new(), 0);
    loop {
        match decoder.step(&buffer)? {
            Step::Data { skip, length } => {
                body.extend_from_slice(&buffer[skip..skip + length]);
                buffer.drain(..skip + length);
            }
            Step::End { .. } => return Ok((body, true)),
            Step::More { skip } => {
                buffer.drain(..skip);
                if next == input.len() {
                    return Ok((body, false));
                }
                let end = input.len().min(next + piece);
                buffer.extend_from_slice(&input[next..end]);
                next = end;
            }
        }
    }
}

#[test]
fn chunks_are_the_same_in_pieces_of_any_size() {
    let input =
        b"A;x=\"y\"\r\n0123456789\r\n00003 \r\nabc\r\n0\r\nx-sum: 1\r\nhost: evil\r\n\r\nNEXT";
    for piece in 1..input.len() {
        assert_eq!(
            decode(input, piece),
            Ok((b"0123456789abc".to_vec(), true)),
            "{piece}"
        );
    }
    let mut decoder = Decoder::new(100);
    assert!(matches!(
        decoder.step(b"0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"),
        Ok(Step::End { .. })
    ));
    assert_eq!(
        decoder.take_trailers(),
        [(b"X-Sum"[..].into(), b"1"[..].into())]
    );
}

#[test]
fn malformed_chunks_are_refused() {
    for bad in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello",
        "-5\r\n",
        "0_5\r\nhello",
        "10000000000000005\r\nhello",
        " 5\r\nhello",
        "\r\nhello",
        "5g\r\nhello",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5;a\rb\r\nhello",
        "5;a\nb\r\nhello",
        "5;\x00\r\nhello",
        "5\r\r\nhello",
        "5 0\r\nhello",
        "5,5\r\nhello",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\nx : 1\r\n\r\n",
        "0\r\nx: 1\r\n more\r\n\r\n",
        "0\r\nx: \x00\r\n\r\n",
        "0\r\nx: 1\nb: 2\r\n\r\n",
        "0\r\nx: 1\r\r\n\r\n",
        "0\r\nx:\r 1\r\n\r\n",
        "0\r\nx: 1\x0c\r\n\r\n",
    ] {
        for piece in [1, 2, 7, 1_000] {
            assert!(
                decode(bad.as_bytes(), piece).is_err(),
                "{bad:?} in {piece}s"
            );
        }
    }
    let long = format!("0\r\nx: {}\r\n\r\n", "v".repeat(1_000));
    assert_eq!(
        decode(long.as_bytes(), 100),
        Err(ChunkError::TrailersTooLong)
    );
}

#[test]
fn trailers_are_counted() {
    let body = |count| format!("0\r\n{}\r\n", "a:\r\n".repeat(count));
    assert_eq!(decode(body(100).as_bytes(), 9), Ok((Vec::new(), true)));
    assert_eq!(
        decode(body(101).as_bytes(), 9),
        Err(ChunkError::TrailersTooLong)
    );
}

#[test]
fn a_refused_head_leaves_nothing_that_panics() {
    let mut request = Request::default();
    let long =
        "GET http://example.org/a/long/path?with=query HTTP/1.1\r\nhost: example.org\r\n\r\n";
    request.parse(long.as_bytes(), LIMITS).unwrap().unwrap();
    let short = b"G / HTTP/1.1\r\ntransfer-encoding: x\r\n\r\n";
    assert_eq!(request.parse(short, LIMITS), Err(HeadError::Coding));
    let _: (_, _, _, _) = (
        request.path().len(),
        request.query(),
        request.authority(),
        request.host(),
    );
    let mut response = Response::default();
    let long = b"HTTP/1.1 200 A very long reason phrase, longer than all of it\r\n\r\n";
    response.parse(long, false, LIMITS).unwrap().unwrap();
    let short = b"HTTP/1.1 200 OK\r\nte: \r\ncontent-length: x\r\n\r\n";
    assert_eq!(
        response.parse(short, false, LIMITS),
        Err(HeadError::ContentLength)
    );
    assert!(response.reason().len() < 3);
}

#[test]
fn names_are_known_whatever_their_case() {
    assert_eq!(known(b"TRANSFER-encoding"), Known::TransferEncoding);
    assert_eq!(known(b"Transfer_Encoding"), Known::Other);
    assert_eq!(known(b"X-Pointsman-Arm"), Known::Own);
    assert_eq!(known(b"x-pointsman-"), Known::Other);
}

#[test]
fn numbers_are_written_as_read() {
    for number in [0, 7, 10, 12_345, u64::MAX] {
        let mut out = Vec::new();
        tokens::push_decimal(&mut out, number);
        assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
    }
    for number in [0, 1, 15, 16, 255, 65_536, usize::MAX] {
        assert_eq!(
            tokens::chunk_line(number, &mut [0; 18]),
            format!("{number:x}\r\n").as_bytes()
        );
    }
}
