//! gRPC through the proxy, with the client and the server that others wrote (`grpcio`); and what counts as a failed call.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;

use super::{endings, one_arm, policy};
use crate::harness::frames::{Peer, upstream};
use crate::harness::streams::{connect, request, run, whole};
use crate::harness::{Proxy, free_address, python};

const SCRIPT: &str = r#"
import queue, sys, threading, time
from concurrent import futures
import grpc

server_address, proxy_address = sys.argv[1].split(",")
cancelled = threading.Event()

def metadata_of(context):
    return dict(context.invocation_metadata())

def unary(request, context):
    assert metadata_of(context)["x-asked"] == "yes"
    assert metadata_of(context)["x-asked-bin"] == b"\x00\xfe"
    context.send_initial_metadata((("x-initial", "i"),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-trailing-bin", b"\x00\xff")))
    return b"unary:" + request

def failing(request, context):
    context.set_trailing_metadata((("x-trailing", "t"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nicht möglich")

def server_stream(request, context):
    for number in range(int(request)):
        yield b"item %d" % number

def breaking_stream(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "gone")

def client_stream(requests, context):
    return b",".join(requests)

def both_stream(requests, context):
    for request in requests:
        yield b"echo:" + request
    context.set_trailing_metadata((("x-trailing", "t"),))

def waiting(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        time.sleep(0.05)
    return b""

handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Failing": grpc.unary_unary_rpc_method_handler(failing),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "BreakingStream": grpc.unary_stream_rpc_method_handler(breaking_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "BothStream": grpc.stream_stream_rpc_method_handler(both_stream),
    "Waiting": grpc.unary_unary_rpc_method_handler(waiting),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
assert server.add_insecure_port(server_address) > 0
server.start()

channel = grpc.insecure_channel(proxy_address, options=(("grpc.enable_http_proxy", 0),))
LIMIT = 30

def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")

# Unary, with metadata at both ends of both messages.
call = channel.unary_unary("/test.Echo/Unary")
asked = (("x-asked", "yes"), ("x-asked-bin", b"\x00\xfe"))
answer, told = call.with_call(b"hello", metadata=asked, timeout=LIMIT)
assert answer == b"unary:hello", answer
initial, trailing = dict(told.initial_metadata()), dict(told.trailing_metadata())
assert initial["x-initial"] == "i" and initial["x-pointsman-arm"] == "a", initial
assert trailing["x-trailing"] == "t" and trailing["x-trailing-bin"] == b"\x00\xff", trailing
large = bytes(range(256)) * 12_000
assert call(large, metadata=asked, timeout=LIMIT) == b"unary:" + large

# An error's status, message and trailers; a method that nobody has.
error = code_of(lambda: channel.unary_unary("/test.Echo/Failing")(b"", timeout=LIMIT))
assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
assert error.details() == "nicht möglich", error
assert dict(error.trailing_metadata())["x-trailing"] == "t", error
error = code_of(lambda: channel.unary_unary("/test.Echo/Nothing")(b"", timeout=LIMIT))
assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

# Streams.
items = list(channel.unary_stream("/test.Echo/ServerStream")(b"500", timeout=LIMIT))
assert items == [b"item %d" % number for number in range(500)]
assert list(channel.unary_stream("/test.Echo/ServerStream")(b"0", timeout=LIMIT)) == []
got = []
def broken():
    for item in channel.unary_stream("/test.Echo/BreakingStream")(b"", timeout=LIMIT):
        got.append(item)
error = code_of(broken)
assert got == [b"first"] and error.code() == grpc.StatusCode.DATA_LOSS, (got, error)
sent = [b"%d" % number for number in range(200)]
assert channel.stream_unary("/test.Echo/ClientStream")(iter(sent), timeout=LIMIT) == b",".join(sent)
# Each message is answered before the next one is sent.
messages = queue.Queue()
stream = channel.stream_stream("/test.Echo/BothStream")(iter(messages.get, None), timeout=LIMIT)
for number in range(50):
    messages.put(b"%d" % number)
    assert next(stream) == b"echo:%d" % number
messages.put(None)
assert list(stream) == []
assert stream.code() == grpc.StatusCode.OK and dict(stream.trailing_metadata())["x-trailing"] == "t"

# A deadline reaches the server as a cancellation.
error = code_of(lambda: channel.unary_unary("/test.Echo/Waiting")(b"", timeout=1))
assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
assert cancelled.wait(LIMIT)
# So does the client's own.
cancelled.clear()
future = channel.unary_unary("/test.Echo/Waiting").future(b"", timeout=LIMIT)
time.sleep(0.5)
future.cancel()
assert cancelled.wait(LIMIT)

# An arm that nobody serves.
error = code_of(lambda: channel.unary_unary("/test.Dead/Unary")(b"", timeout=LIMIT))
assert error.code() == grpc.StatusCode.UNAVAILABLE, error
server.stop(None)
print("done")
"#;

#[test]
fn a_real_client_and_a_real_server_do_not_notice() {
    let python = python::with(&["grpcio==1.85.3", "typing-extensions==4.16.0"]);
    let server = free_address();
    let at = |path: &str, endpoint| {
        let text = policy("[upstream]\nprotocol = \"http2\"\n", &[("a", &[endpoint])]);
        text.replace("/v1/stars", path)
    };
    let proxy = Proxy::start(&[
        ("echo", &at("/test.Echo/*", server)),
        ("dead", &at("/test.Dead/*", free_address())),
    ]);
    let argument = format!("{server},{}", proxy.proxy);
    assert_eq!(python.run(SCRIPT, Path::new(&argument)).trim(), "done");
    let ended = endings(&proxy, 12);
    // The server keeps the deadline too, and may say so before the client leaves; of the cancellation it knows nothing.
    assert!(["aborted", "failed"].contains(&&*ended[9]), "{ended:?}");
    assert_eq!(ended[10], "aborted", "{ended:?}");
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const HTTP2: &str = "[upstream]\nprotocol = \"http2\"\n";

/// An endpoint that does `answer` with each call, which has so many before it, and counts them.
fn answering(
    answer: impl Fn(usize, &mut Peer, u32) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let address = upstream(move |_, peer| {
        while let Some(stream) = peer.request() {
            answer(counter.fetch_add(1, Ordering::Relaxed), peer, stream);
        }
    });
    (address, count)
}

/// A message and trailers with this status.
fn call(peer: &mut Peer, stream: u32, kind: (&str, &str), status: &str) {
    peer.fields(stream, &[(":status", "200"), kind], false);
    peer.data(stream, b"\0\0\0\0\x02ok");
    peer.fields(
        stream,
        &[("grpc-status", status), ("grpc-message", "x")],
        true,
    );
}

/// The `grpc-status` of the answers to so many calls, wherever it is.
fn statuses(proxy: &Proxy, count: usize) -> Vec<Option<String>> {
    run(async {
        let mut client = connect(proxy.proxy).await;
        let mut statuses = Vec::new();
        for _ in 0..count {
            let asked = request("POST", "/v1/stars", whole(b"\0\0\0\0\0"));
            let answer = client.send_request(asked).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["x-pointsman-arm"], "a");
            let head = answer.headers().get("grpc-status").cloned();
            let body = answer.into_body().collect().await.unwrap();
            let trailer = body
                .trailers()
                .and_then(|map| map.get("grpc-status"))
                .cloned();
            let status = trailer.or(head);
            statuses.push(status.map(|status| status.to_str().unwrap().to_owned()));
        }
        statuses
    })
}

fn failures(proxy: &Proxy) -> String {
    let text = proxy.admin().get("/metrics").unwrap().text();
    let line = text.lines().find_map(|line| {
        line.strip_prefix("pointsman_failures_total{experiment=\"stars\",arm=\"a\"} ")
    });
    line.unwrap().to_owned()
}

#[test]
fn a_call_fails_by_its_own_status() {
    let (address, _) = answering(|before, peer, stream| {
        call(peer, stream, GRPC, &before.to_string());
    });
    let tables = format!("{HTTP2}[upstream.ejection]\nconsecutive_failures = 0\n");
    let proxy = one_arm("", &tables, &[address]);
    let told: Vec<_> = (0..17).map(|code| Some(code.to_string())).collect();
    assert_eq!(statuses(&proxy, 17), told);
    let failing = [2, 4, 12, 13, 14, 15];
    let wanted = (0..17).map(|code| {
        if failing.contains(&code) {
            "failed"
        } else {
            "answered"
        }
    });
    assert_eq!(endings(&proxy, 17), wanted.collect::<Vec<_>>());
    assert_eq!(failures(&proxy), "6");
}

#[test]
fn a_call_that_ends_without_a_status_has_failed_and_what_is_no_call_has_none() {
    let (address, _) = answering(|before, peer, stream| match before {
        0 => {
            peer.fields(stream, &[(":status", "200"), GRPC], false);
            peer.fields(stream, &[("x-other", "1")], true);
        }
        1 => peer.fields(
            stream,
            &[(":status", "200"), GRPC, ("grpc-status", "14")],
            true,
        ),
        2 => peer.fields(
            stream,
            &[(":status", "200"), GRPC, ("grpc-status", "5")],
            true,
        ),
        _ => call(peer, stream, ("content-type", "text/plain"), "14"),
    });
    let proxy = one_arm("", HTTP2, &[address]);
    let told = [None, Some("14"), Some("5"), Some("14")];
    assert_eq!(
        statuses(&proxy, 4),
        told.map(|status| status.map(str::to_owned))
    );
    assert_eq!(
        endings(&proxy, 4),
        ["failed", "failed", "answered", "answered"]
    );
    assert_eq!(failures(&proxy), "2");
}

#[test]
fn an_endpoint_whose_calls_fail_is_let_rest() {
    let (well, calls_well) = answering(|_, peer, stream| call(peer, stream, GRPC, "0"));
    let (ill, calls_ill) = answering(|_, peer, stream| call(peer, stream, GRPC, "14"));
    let tables = format!(
        "{HTTP2}[upstream.ejection]\nconsecutive_failures = 2\nbase = \"1h\"\nmax = \"1h\"\n"
    );
    let proxy = one_arm("", &tables, &[well, ill]);
    let failed = statuses(&proxy, 20);
    let failed = failed
        .iter()
        .filter(|status| status.as_deref() == Some("14"));
    assert_eq!(failed.count(), 2);
    let counts = [calls_well, calls_ill].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [18, 2]);
}
