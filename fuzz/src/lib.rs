//! What must hold of HTTP/1.1 messages, whatever bytes come in. Each check panics where it does not.
//!
//! The fuzz targets call these with what the fuzzer makes up. Not here: sockets and time.

use pointsman::config::settings::{Forwarding, ForwardingMode, ForwardingStyle};
use pointsman::experiment::id::SequenceKey;
use pointsman::http1::Framing;
use pointsman::http1::chunked::{Decoder, Step, Trailers};
use pointsman::http1::field::{Known, is_forbidden_trailer, is_protected, known};
use pointsman::http1::fields::Fields;
use pointsman::http1::head::{HeadError, Limits, Request, Response};
use pointsman::proxy::client::field;
use pointsman::proxy::headers::{Head, Origin, Outgoing, Passing};
use pointsman::proxy::vet;
use pointsman::proxy::worker::{Peer, Role};

/// Bytes that trailers may have here.
const ROOM: usize = 64;

/// Bounds for a message that was written anew, which may be longer than what came in.
const WIDE: Limits = Limits {
    fields: 1_000,
    bytes: 1 << 20,
};

/// The first byte chooses the bounds, so that both sides of each are seen.
fn limits(choice: u8) -> Limits {
    let fields = [3, 100, 101, 300][usize::from(choice & 3)];
    let bytes = [64, 256, 4_096, 65_536][usize::from(choice >> 2 & 3)];
    Limits { fields, bytes }
}

/// All short prefixes of an input, some longer ones, and those around `length`.
fn prefixes(input: &[u8], length: usize) -> impl Iterator<Item = usize> {
    let step = input.len() / 64 + 1;
    let near = length.saturating_sub(2)..(length + 3).min(input.len() + 1);
    (0..=input.len()).step_by(step).chain(near)
}

/// Parses every prefix: more bytes never change what fewer bytes were found to be.
fn agrees<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, HeadError>,
) -> Option<(usize, T)> {
    let whole = parse(input);
    let length = match &whole {
        Ok(Some((length, _))) => *length,
        _ => input.len(),
    };
    for end in prefixes(input, length) {
        let part = parse(&input[..end]);
        match (&whole, &part) {
            (Ok(Some((length, _))), Ok(None)) => assert!(end < *length),
            (Ok(Some((length, _))), _) => {
                assert!(end >= *length);
                assert_eq!(part, whole);
            }
            (Ok(None), _) => assert_eq!(part, Ok(None)),
            (Err(_), _) => assert!(!matches!(part, Ok(Some(_)))),
        }
    }
    whole.ok().flatten()
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs(fields: &Fields) -> Pairs {
    let pair = |(kind, name, value): (Known, &[u8], &[u8])| {
        assert_eq!(kind, known(name));
        (name.to_vec(), value.to_vec())
    };
    fields.iter().map(pair).collect()
}

/// The fields of a head by another, simpler reader: lines, colons, and the space around values.
fn lines(head: &[u8]) -> (Vec<u8>, Pairs) {
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .expect("a head ends with an empty line");
    let mut text = text;
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default().to_vec();
    let pair = |line: &[u8]| {
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .expect("a line has a colon");
        let mut value = &line[colon + 1..];
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        assert!(is_token(&line[..colon]), "{line:?}");
        assert!(is_clean(value), "{line:?}");
        (line[..colon].to_vec(), value.to_vec())
    };
    (first, lines.map(pair).collect())
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte))
}

fn is_clean(value: &[u8]) -> bool {
    !value
        .iter()
        .any(|byte| (*byte < 32 && *byte != b'\t') || *byte == 127)
}

fn count(pairs: &Pairs, name: &str) -> usize {
    pairs
        .iter()
        .filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
        .count()
}

/// A body is delimited in one way or not at all.
fn framed_once(framing: Framing, pairs: &Pairs, is_http_10: bool) {
    let (lengths, codings) = (
        count(pairs, "content-length"),
        count(pairs, "transfer-encoding"),
    );
    assert!(lengths + codings <= 1);
    assert!(codings == 0 || !is_http_10);
    match framing {
        Framing::Chunked => assert_eq!(codings, 1),
        Framing::UntilClose => assert_eq!((lengths, codings), (0, 0)),
        Framing::Length(_) => {}
    }
}

/// What a request's head was found to say.
#[derive(Debug, PartialEq)]
struct Told {
    method: String,
    target: (String, Option<String>),
    framing: Framing,
    flags: [bool; 4],
    fields: Pairs,
}

fn told(request: &Request) -> Told {
    Told {
        method: request.method().to_owned(),
        target: (
            request.path().to_owned(),
            request.query().map(str::to_owned),
        ),
        framing: request.framing,
        flags: [
            request.is_http_10,
            request.keeps_alive(),
            request.wants_websocket(),
            request.expects_continue(),
        ],
        fields: pairs(&request.fields),
    }
}

/// A request's head.
pub fn request_head(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let limits = limits(*choice);
    let parse = |bytes: &[u8]| {
        let mut request = Request::default();
        let parsed = request.parse(bytes, limits);
        // Whatever came of it, it can be looked at.
        let told = told(&request);
        parsed.map(|length| length.map(|length| (length, told)))
    };
    let Some((length, found)) = agrees(input, parse) else {
        return;
    };
    assert!(length <= limits.bytes && found.fields.len() <= limits.fields);
    let (first, fields) = lines(&input[..length]);
    assert_eq!(fields, found.fields);
    assert!(is_token(found.method.as_bytes()) && found.method.len() <= 32);
    let (path, query) = &found.target;
    assert!(path.starts_with('/') && !path.contains(['?', '#']));
    let version = if found.flags[0] {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    assert!(first.starts_with(format!("{} ", found.method).as_bytes()));
    assert!(first.ends_with(format!(" {version}").as_bytes()));
    assert_eq!(first.iter().filter(|byte| **byte == b' ').count(), 2);
    assert_ne!(found.framing, Framing::UntilClose);
    framed_once(found.framing, &fields, found.flags[0]);
    // Written anew it says the same.
    let query = query
        .as_ref()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let mut text = format!("{} {path}{query} {version}\r\n", found.method).into_bytes();
    for (name, value) in &found.fields {
        field(&mut text, name, value);
    }
    text.extend_from_slice(b"\r\n");
    let mut again = Request::default();
    assert_eq!(again.parse(&text, WIDE), Ok(Some(text.len())));
    assert_eq!(told(&again), found);
}

/// A response's head.
pub fn response_head(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let (limits, to_head) = (limits(*choice), choice & 16 != 0);
    let told = |response: &Response| {
        let flags = [response.is_http_10, response.keeps_alive()];
        (
            response.status,
            response.framing,
            flags,
            response.reason().to_vec(),
            pairs(&response.fields),
        )
    };
    let parse = |bytes: &[u8]| {
        let mut response = Response::default();
        let parsed = response.parse(bytes, to_head, limits);
        let told = told(&response);
        parsed.map(|length| length.map(|length| (length, told)))
    };
    let Some((length, found)) = agrees(input, parse) else {
        return;
    };
    assert!(length <= limits.bytes && found.4.len() <= limits.fields);
    let (_, fields) = lines(&input[..length]);
    assert_eq!(fields, found.4);
    assert!((100..=599).contains(&found.0) && is_clean(&found.3));
    if to_head || matches!(found.0, 100..=199 | 204 | 304) {
        assert_eq!(found.1, Framing::Length(0));
    } else {
        framed_once(found.1, &fields, found.2[0]);
    }
    let version = if found.2[0] { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut text = format!("{version} {} ", found.0).into_bytes();
    text.extend_from_slice(&found.3);
    text.extend_from_slice(b"\r\n");
    for (name, value) in &found.4 {
        field(&mut text, name, value);
    }
    text.extend_from_slice(b"\r\n");
    let mut again = Response::default();
    assert_eq!(again.parse(&text, to_head, WIDE), Ok(Some(text.len())));
    assert_eq!(told(&again), found);
}

/// Where a body was left.
#[derive(Debug, PartialEq)]
enum End {
    /// Behind its last byte, which is so far into the input.
    Ended(usize, Trailers),
    More,
    Refused,
}

/// Decodes what comes in pieces of the lengths that `piece` gives, looking ahead as the proxy does.
fn decode(input: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<u8>, End) {
    let (mut decoder, mut body) = (Decoder::new(ROOM), Vec::new());
    let (mut start, mut end) = (0, 0);
    let mut surely = false;
    loop {
        let step = decoder.step(&input[start..end]);
        let is_data = matches!(step, Ok(Step::Data { .. }) | Err(_));
        assert!(
            !std::mem::take(&mut surely) || is_data,
            "another piece was promised"
        );
        match step {
            Err(_) => return (body, End::Refused),
            Ok(Step::Data { skip, length }) => {
                assert!(length > 0 && skip + length <= end - start);
                body.extend_from_slice(&input[start + skip..start + skip + length]);
                start += skip + length;
                if let Some(length) = decoder.end_at(&input[start..end]) {
                    assert!(decoder.has_ended());
                    return (body, End::Ended(start + length, decoder.take_trailers()));
                }
                surely = decoder.has_more(&input[start..end]);
            }
            Ok(Step::End { skip }) => {
                assert!(decoder.has_ended() && skip <= end - start);
                return (body, End::Ended(start + skip, decoder.take_trailers()));
            }
            Ok(Step::More { skip }) => {
                assert!(skip <= end - start);
                start += skip;
                if end == input.len() {
                    return (body, End::More);
                }
                end = input.len().min(end + piece().max(1));
            }
        }
    }
}

/// The same by the book (RFC 9112 §7.1), for input that is all there.
fn reference(input: &[u8]) -> (Vec<u8>, End) {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = match reference_line(&input[at..], 1_024) {
            Ok(Some(line)) => line,
            Ok(None) => return (body, End::More),
            Err(()) => return (body, End::Refused),
        };
        at += line.len() + 2;
        let text = String::from_utf8_lossy(line);
        let size = text.split([';', ' ', '\t']).next().unwrap_or_default();
        let behind = text[size.len()..].trim_matches([' ', '\t']);
        let significant = size.trim_start_matches('0').len();
        let is_size = !size.is_empty()
            && size.len() <= 32
            && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_size
            || significant > 15
            || !(behind.is_empty() || behind.starts_with(';'))
            || !is_clean(line)
        {
            return (body, End::Refused);
        }
        let size = u64::from_str_radix(size, 16).expect("at most 15 digits");
        if size == 0 {
            return reference_trailers(input, at, body);
        }
        let there = (input.len() - at) as u64;
        let taken = size.min(there) as usize;
        body.extend_from_slice(&input[at..at + taken]);
        at += taken;
        match &input[at..] {
            [] | [b'\r'] => return (body, End::More),
            [b'\r', b'\n', ..] => at += 2,
            _ => return (body, End::Refused),
        }
    }
}

fn reference_trailers(input: &[u8], mut at: usize, body: Vec<u8>) -> (Vec<u8>, End) {
    let (mut trailers, mut room) = (Trailers::new(), ROOM);
    loop {
        let line = match reference_line(&input[at..], room) {
            Ok(Some(line)) => line,
            Ok(None) => return (body, End::More),
            Err(()) => return (body, End::Refused),
        };
        at += line.len() + 2;
        if line.is_empty() {
            return (body, End::Ended(at, trailers));
        }
        room -= line.len();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return (body, End::Refused);
        };
        let (name, mut value) = (&line[..colon], &line[colon + 1..]);
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        if !is_token(name) || !is_clean(value) {
            return (body, End::Refused);
        }
        if !is_forbidden_trailer(name) {
            trailers.push((name.into(), value.into()));
        }
    }
}

fn reference_line(input: &[u8], limit: usize) -> Result<Option<&[u8]>, ()> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() > limit + 1 {
            Err(())
        } else {
            Ok(None)
        };
    };
    let line = input[..end].strip_suffix(b"\r").ok_or(())?;
    if line.len() > limit {
        Err(())
    } else {
        Ok(Some(line))
    }
}

/// A chunked body. The first byte is the seed of how it is cut into pieces.
pub fn chunked(input: &[u8]) {
    let Some((seed, input)) = input.split_first() else {
        return;
    };
    let whole = decode(input, || usize::MAX / 2);
    assert_eq!(whole, reference(input));
    let mut state = u32::from(*seed) * 2 + 1;
    let pieces = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as usize
    };
    assert_eq!(decode(input, pieces), whole);
    assert_eq!(decode(input, || 1), whole);
}

/// A head as an endpoint gets it, and a response's fields as a client gets them.
pub fn forwarded_head(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let mut request = Request::default();
    let is_request = matches!(request.parse(input, limits(*choice)), Ok(Some(_)));
    if is_request && vet::request(&request).is_ok() {
        forwarded_request(*choice, &request);
    }
    let mut response = Response::default();
    if matches!(
        response.parse(input, choice & 16 != 0, limits(*choice)),
        Ok(Some(_))
    ) {
        let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
        let passing = Passing {
            response: &response,
            upgraded: false,
        };
        passing.lines(&mut text);
        // As lines and one by one, it is the same.
        let mut again = b"HTTP/1.1 200 OK\r\n".to_vec();
        passing.each(&mut |name, value| field(&mut again, name, value));
        text.extend_from_slice(b"\r\n");
        again.extend_from_slice(b"\r\n");
        let (_, fields) = lines(&text);
        assert_eq!(fields, lines(&again).1);
        stays_behind(&response.fields, &fields);
        assert_eq!(count(&fields, "te"), 0);
    }
}

fn forwarded_request(choice: u8, request: &Request) {
    let address = "192.0.2.7:4711".parse().expect("an address");
    let peer = Peer {
        address,
        role: Role::Everything,
        origin: Origin::new(address, choice & 32 != 0),
    };
    let modes = [
        ForwardingMode::Append,
        ForwardingMode::Replace,
        ForwardingMode::Off,
    ];
    let styles = [
        ForwardingStyle::XForwarded,
        ForwardingStyle::Forwarded,
        ForwardingStyle::Both,
    ];
    let outgoing = Outgoing {
        request,
        peer: &peer,
        forwarding: Forwarding {
            mode: modes[usize::from(choice) % 3],
            style: styles[usize::from(choice) / 3 % 3],
            via: choice & 64 != 0,
        },
        sequence: SequenceKey {
            origin: 1,
            worker: 2,
            counter: 3,
        },
        identity: choice & 128 != 0,
        websocket: false,
        is_whole: choice & 16 != 0,
        deadline: (choice & 64 != 0).then_some(("x-deadline", 1_000)),
        shadow: None,
    };
    let mut text = Vec::new();
    text.extend_from_slice(request.method().as_bytes());
    text.push(b' ');
    outgoing.target(None, &mut text);
    text.extend_from_slice(b" HTTP/1.1\r\n");
    outgoing.fields(&mut |name, value| field(&mut text, name, value));
    text.extend_from_slice(b"\r\n");
    let (first, fields) = lines(&text);
    assert_eq!(first.iter().filter(|byte| **byte == b' ').count(), 2);
    stays_behind(&request.fields, &fields);
    let te = |(name, value): &(Vec<u8>, Vec<u8>)| {
        !name.eq_ignore_ascii_case(b"te") || value == b"trailers"
    };
    assert!(fields.iter().all(te));
    assert_eq!(count(&fields, "host"), 0, "it is written by itself");
    if outgoing.deadline.is_some() {
        assert_eq!(
            count(&fields, "x-deadline"),
            1,
            "a client's own is replaced"
        );
    }
    let mut again = Request::default();
    assert_eq!(again.parse(&text, WIDE), Ok(Some(text.len())));
    assert_eq!(again.framing, Framing::Length(0));
    assert_eq!(
        (again.method(), again.path(), again.query()),
        (request.method(), request.path(), request.query())
    );
}

/// What is for one connection, or named by its `Connection`, or ours, is not in what was passed on.
fn stays_behind(before: &Fields, after: &Pairs) {
    for (name, _) in after {
        let known = known(name);
        assert!(!matches!(
            known,
            Known::Connection
                | Known::HopByHop
                | Known::TransferEncoding
                | Known::ContentLength
                | Known::Upgrade
                | Known::Own
        ));
        let is_replaced = is_protected(known) || is_ours(name);
        let is_named = before.of(Known::Connection).any(|value| {
            let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            options.any(|option| option.eq_ignore_ascii_case(name))
        });
        assert!(
            is_replaced || !is_named,
            "{:?}",
            String::from_utf8_lossy(name)
        );
    }
}

/// Fields that the proxy adds by itself, whatever came in.
fn is_ours(name: &[u8]) -> bool {
    let added: [&[u8]; 5] = [
        b"accept-encoding",
        b"x-request-id",
        b"traceparent",
        b"via",
        b"x-deadline",
    ];
    added.iter().any(|added| name.eq_ignore_ascii_case(added))
}
