//! Turns what shops and crawlers store into plain text: no HTML entities, no tags, one line.
//!
//! Not an HTML parser: review texts hold a handful of entities and at most a stray tag.

/// Longest entity looked for, from `&` to `;`. Anything longer is an ampersand in running text.
const LONGEST_ENTITY: usize = 12;

/// `text` on one line: entities replaced, tags and backslashes dropped, white space collapsed.
pub fn plain_text(text: &str) -> String {
    let unescaped = replace_entities(text);
    let untagged = drop_tags(&unescaped);
    let mut words = String::with_capacity(untagged.len());
    for word in untagged.replace('\\', "").split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

fn replace_entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest
            .bytes()
            .take(LONGEST_ENTITY)
            .position(|byte| byte == b';');
        if let Some((end, character)) = end.and_then(|end| Some((end, entity(&rest[1..end])?))) {
            out.push(character);
            rest = &rest[end + 1..];
        } else {
            out.push('&');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// A `<` without a later `>` (as in "<3") stays.
fn drop_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let Some(length) = rest[start..].find('>') else {
            break;
        };
        out.push_str(&rest[..start]);
        out.push(' ');
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::plain_text;

    #[test]
    fn entities_tags_backslashes_and_white_space() {
        for (raw, clean) in [
            ("I&#39;m 5&quot; tall", "I'm 5\" tall"),
            ("x &amp; y&s; R&D; &#x41;", "x & y&s; R&D; A"),
            ("good<br />value", "good value"),
            ("love it <3", "love it <3"),
            ("a\r\n\r\n b\t c\\d ", "a b cd"),
            ("&", "&"),
            ("&#1114112; &é;", "&#1114112; &é;"),
            ("", ""),
        ] {
            assert_eq!(plain_text(raw), clean);
        }
    }
}
