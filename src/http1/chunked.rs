//! The chunked transfer coding (RFC 9112 §7.1), decoded strictly and without copying: extensions are dropped (§7.1.1), a line ends with CR LF,
//! and nothing that another parser could read as another length gets through.

use super::field::is_forbidden_trailer;

/// Longest line of a chunk: its size and its extensions.
const MAX_LINE: usize = 1_024;

/// Most trailers of a body, those included that are not passed on.
const MAX_TRAILERS: usize = 100;

/// Trailers, by name and value.
pub type Trailers = Vec<(Box<[u8]>, Box<[u8]>)>;

/// A body that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A size, an extension or a line end.
    #[error("a chunk is malformed")]
    Malformed,
    /// A trailer.
    #[error("a trailer is malformed")]
    Trailer,
    /// More trailers, or more bytes of them, than the limit.
    #[error("the trailers are too long")]
    TrailersTooLong,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Behind `skip` bytes of framing there are `length` bytes of data. Both are consumed by the caller.
    Data {
        /// Bytes to drop first.
        skip: usize,
        /// Bytes of the body after them.
        length: usize,
    },
    /// `skip` bytes of framing are done with, and more bytes are needed.
    More {
        /// Bytes to drop.
        skip: usize,
    },
    /// The body has ended behind `skip` bytes.
    End {
        /// Bytes to drop.
        skip: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a chunk's line.
    Size,
    /// So many bytes of the chunk are still to come.
    Data(u64),
    /// The CR LF behind a chunk's data.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
    Ended,
}

/// Where a chunked body stands.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    trailers: Trailers,
    /// Trailers that may still come.
    places: usize,
    /// Bytes that they may still have.
    room: usize,
}

impl Decoder {
    /// At the start of a body whose trailers may have `room` bytes.
    pub fn new(room: usize) -> Self {
        Self {
            state: State::Size,
            trailers: Vec::new(),
            places: MAX_TRAILERS,
            room,
        }
    }

    /// Looks at `input`, which starts where the last step ended.
    ///
    /// # Errors
    ///
    /// See [`ChunkError`]; after one the body is lost.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Data(left) => {
                    let length = left.min(rest.len() as u64);
                    if length == 0 {
                        return Ok(Step::More { skip: at });
                    }
                    self.state = match left - length {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    return Ok(Step::Data {
                        skip: at,
                        length: length as usize,
                    });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More { skip: at }),
                    _ => return Err(ChunkError::Malformed),
                },
                State::Size => {
                    let Some(line) = line(rest, MAX_LINE).ok_or(ChunkError::Malformed)? else {
                        return Ok(Step::More { skip: at });
                    };
                    at += line.len() + 2;
                    self.state = match size(line)? {
                        0 => State::Trailers,
                        size => State::Data(size),
                    };
                }
                State::Trailers => {
                    let found = line(rest, self.room).ok_or(ChunkError::TrailersTooLong)?;
                    let Some(line) = found else {
                        return Ok(Step::More { skip: at });
                    };
                    at += line.len() + 2;
                    if line.is_empty() {
                        self.state = State::Ended;
                    } else {
                        self.room -= line.len();
                        self.trailer(line)?;
                    }
                }
                State::Ended => return Ok(Step::End { skip: at }),
            }
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        let places = self.places.checked_sub(1);
        self.places = places.ok_or(ChunkError::TrailersTooLong)?;
        let colon = memchr::memchr(b':', line).ok_or(ChunkError::Trailer)?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_name(name) || !is_value(value) {
            return Err(ChunkError::Trailer);
        }
        if !is_forbidden_trailer(name) {
            self.trailers.push((name.into(), value.into()));
        }
        Ok(())
    }

    /// Behind the data of what was the last step: ends the body at once if its end is next, without trailers. The bytes of that end.
    pub fn end_at(&mut self, input: &[u8]) -> Option<usize> {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        let ends = self.state == State::DataEnd && input.starts_with(END);
        ends.then(|| {
            self.state = State::Ended;
            END.len()
        })
    }

    /// Whether `input`, behind the data of what was the last step, surely has another piece of the body.
    pub fn has_more(&self, input: &[u8]) -> bool {
        let Some(next) = input.strip_prefix(b"\r\n") else {
            return false;
        };
        let end = memchr::memchr(b'\n', next);
        next.first() != Some(&b'0') && end.is_some_and(|end| end + 1 < next.len())
    }

    /// Whether the body has ended.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The trailers that may be passed on; empty before the end.
    pub fn take_trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }
}

/// The first line without its CR LF; `Some(None)` when it is not whole, `None` when it is longer than `limit` or ends with a lone LF.
#[expect(
    clippy::option_option,
    reason = "the errors of sizes and trailers differ"
)]
fn line(input: &[u8], limit: usize) -> Option<Option<&[u8]>> {
    match memchr::memchr(b'\n', input) {
        Some(0) => None,
        Some(end) if input[end - 1] != b'\r' || end > limit + 1 => None,
        Some(end) => Some(Some(&input[..end - 1])),
        None if input.len() > limit + 1 => None,
        None => Some(None),
    }
}

/// `1*HEXDIG [ BWS ";" … ]`: at most 15 digits after leading zeros; nothing but white space and extensions behind them.
fn size(line: &[u8]) -> Result<u64, ChunkError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = &line[..digits.count()];
    let rest = &line[digits.len()..];
    let significant = digits.len() - digits.iter().take_while(|byte| **byte == b'0').count();
    if digits.is_empty() || significant > 15 || digits.len() > 32 {
        return Err(ChunkError::Malformed);
    }
    let blank = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    let extension = &rest[blank..];
    if !extension.is_empty() && (extension[0] != b';' || !is_value(extension)) {
        return Err(ChunkError::Malformed);
    }
    let digit = |byte: &u8| u64::from(char::from(*byte).to_digit(16).unwrap_or(0));
    Ok(digits
        .iter()
        .fold(0, |value, byte| (value << 4) | digit(byte)))
}

/// Without the spaces and tabs around it. Other white space does not belong there: a carriage return that does not end a line, for one.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A token (RFC 9110 §5.6.2).
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A field value (RFC 9110 §5.5): visible characters, spaces, tabs and bytes above ASCII.
pub fn is_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}
