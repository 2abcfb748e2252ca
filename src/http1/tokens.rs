//! Lists, numbers and names inside field values (RFC 9110 §5.6).

/// A number of plain decimal digits, at most 18 of them, so that it fits whatever another parser uses.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0')),
    )
}

/// The members of a comma-separated list, without the white space around them; empty members are left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Whether `token` is a member of the list, whatever its case.
pub fn contains(value: &[u8], token: &[u8]) -> bool {
    list(value).any(|member| member.eq_ignore_ascii_case(token))
}

/// Writes a decimal number.
pub fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The first line of a chunk of `length` bytes (RFC 9112 §7.1), in `line`.
pub fn chunk_line(length: usize, line: &mut [u8; 18]) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (mut start, mut rest) = (16, length);
    line[16..].copy_from_slice(b"\r\n");
    loop {
        start -= 1;
        line[start] = DIGITS[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return &line[start..];
        }
    }
}
