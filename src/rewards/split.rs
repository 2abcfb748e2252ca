//! Cuts a body into its items, knowing no more of JSON than strings and brackets.

use super::{BodyError, Limits};

/// The items of a body, each as its bytes.
pub(super) fn items(
    body: &[u8],
    json_lines: bool,
    limits: Limits,
) -> Result<Vec<&[u8]>, BodyError> {
    let start = body
        .iter()
        .position(|byte| !is_blank(*byte))
        .ok_or(BodyError::Empty)?;
    if json_lines {
        return lines(body, limits);
    }
    if body[start] == b'[' {
        return elements(body, start, limits);
    }
    // One object, or several of them on a line each.
    let end = skip_value(body, start, limits)?;
    if body[end..].iter().all(|byte| is_blank(*byte)) {
        return Ok(vec![&body[start..end]]);
    }
    lines(body, limits)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn unreadable<T>(offset: usize, problem: impl Into<String>) -> Result<T, BodyError> {
    Err(BodyError::Unreadable {
        offset,
        problem: problem.into(),
    })
}

/// Lines that are not blank. A line nested too deeply spoils only itself: it is no item that could be read, so it is given
/// as it is and fails alone.
fn lines(body: &[u8], limits: Limits) -> Result<Vec<&[u8]>, BodyError> {
    let mut found = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if found.len() == limits.items {
            return Err(BodyError::TooMany {
                limit: limits.items,
            });
        }
        found.push(line);
    }
    Ok(found)
}

/// The elements of the array that begins at `start`.
fn elements(body: &[u8], start: usize, limits: Limits) -> Result<Vec<&[u8]>, BodyError> {
    let mut found = Vec::new();
    // The array itself is one level.
    let limits = Limits {
        depth: limits.depth.saturating_sub(1),
        ..limits
    };
    let mut at = skip_blanks(body, start + 1);
    if body.get(at) == Some(&b']') {
        at += 1;
    } else {
        loop {
            if found.len() == limits.items {
                return Err(BodyError::TooMany {
                    limit: limits.items,
                });
            }
            let begin = skip_blanks(body, at);
            let end = skip_value(body, begin, limits)?;
            let element = body[begin..end].trim_ascii_end();
            if element.is_empty() {
                return unreadable(begin, "an item was expected");
            }
            found.push(element);
            at = end + 1;
            match body.get(end) {
                Some(b',') => {}
                Some(b']') => break,
                Some(_) => return unreadable(end, "`,` or `]` was expected"),
                None => return unreadable(end, "the array is not closed by `]`"),
            }
        }
    }
    let rest = skip_blanks(body, at);
    if rest < body.len() {
        return unreadable(rest, "nothing was expected after the array");
    }
    Ok(found)
}

fn skip_blanks(body: &[u8], from: usize) -> usize {
    body[from.min(body.len())..]
        .iter()
        .position(|byte| !is_blank(*byte))
        .map_or(body.len(), |blanks| from + blanks)
}

/// The end of the value that begins at `start`: behind its closing bracket, or before the next comma, closing bracket or end.
fn skip_value(body: &[u8], start: usize, limits: Limits) -> Result<usize, BodyError> {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at = skip_string(body, at)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > limits.depth {
                    return unreadable(at, "brackets nest too deeply: a reward is a flat object");
                }
            }
            b'}' | b']' | b',' if depth == 0 => return Ok(at),
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(skip_blanks(body, at + 1));
                }
            }
            _ => {}
        }
        at += 1;
    }
    if depth > 0 {
        return unreadable(body.len(), "a bracket is not closed");
    }
    Ok(body.len())
}

/// The place of the closing quote of the string that begins at `start`.
fn skip_string(body: &[u8], start: usize) -> Result<usize, BodyError> {
    let mut at = start + 1;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => return Ok(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    unreadable(start, "a string is not closed")
}
