//! What holds of any input, however it is cut into pieces.

use proptest::prelude::*;

use super::{LIMITS, decode};
use crate::http1::head::Request;

/// Pieces of what chunked bodies are made of, right and wrong.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(&b"\r\n"[..]),
        3 => Just(&b"5\r\nhello\r\n"[..]),
        2 => Just(&b"0\r\n\r\n"[..]),
        1 => Just(&b"0\r\nx: y\r\n\r\n"[..]),
        1 => Just(&b"a;b=c\r\n0123456789"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b"ff"[..]),
        1 => Just(&b"GET / HTTP/1.1\r\nhost: a\r\n"[..]),
        1 => Just(&b"content-length: 1\r\n"[..]),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn chunks_are_the_same_however_they_are_cut(input in soup(), piece in 1_usize..20) {
        prop_assert_eq!(decode(&input, piece), decode(&input, input.len().max(1)));
    }

    #[test]
    fn a_prefix_of_a_head_is_no_other_head(input in soup()) {
        let parse = |bytes: &[u8]| Request::default().parse(bytes, LIMITS);
        let whole = parse(&input);
        for end in 0..input.len() {
            match (parse(&input[..end]), whole) {
                (Ok(None), _) => {}
                (Err(_), whole) => prop_assert!(whole.is_err()),
                (found, whole) => prop_assert_eq!(found, whole),
            }
        }
    }
}
