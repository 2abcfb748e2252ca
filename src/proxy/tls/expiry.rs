//! The end of a certificate's life, out of its DER (RFC 5280, section 4.1). Only for a metric: whether a certificate is
//! trusted is decided by whoever verifies it.

use crate::clock::Timestamp;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (signed, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(signed, SEQUENCE)?;
    // The version is left out of certificates of version 1.
    if let Some((_, rest)) = expect(fields, VERSION) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (validity, _) = expect(fields, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    moment(tag, std::str::from_utf8(text).ok()?)
}

/// Tag, content and what follows of the element at the front.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// `YYMMDDhhmmssZ` until 2049, `YYYYMMDDhhmmssZ` after it (section 4.1.2.5).
fn moment(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i16 = digits[..2].parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |index: usize| rest[index * 2..index * 2 + 2].parse::<i8>().ok();
    let time =
        jiff::civil::DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0)
            .ok()?;
    let millis = jiff::tz::TimeZone::UTC
        .to_timestamp(time)
        .ok()?
        .as_millisecond();
    Some(Timestamp::from_millis(u64::try_from(millis).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time() {
        let utc = moment(UTC_TIME, "491231235959Z").unwrap();
        assert_eq!(utc.to_string(), "2049-12-31T23:59:59.000Z");
        let utc = moment(UTC_TIME, "700101000001Z").unwrap();
        assert_eq!(utc.as_millis(), 1000);
        let general = moment(GENERALIZED_TIME, "20500101000000Z").unwrap();
        assert_eq!(general.to_string(), "2050-01-01T00:00:00.000Z");
        for (tag, text) in [
            (UTC_TIME, "20500101000000Z"),
            (UTC_TIME, "491231235959"),
            (UTC_TIME, "49123123595+Z"),
            (UTC_TIME, "491331235959Z"),
            (GENERALIZED_TIME, "ä0500101000000Z"),
            (0x13, "491231235959Z"),
        ] {
            assert_eq!(moment(tag, text), None, "{text}");
        }
    }

    #[test]
    fn no_bytes_are_too_wrong() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let certificate = parameters.self_signed(&key).unwrap();
        let whole = certificate.der().to_vec();
        assert_eq!(
            not_after(&whole).unwrap().to_string(),
            "2031-02-03T00:00:00.000Z"
        );
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None);
        }
        for index in 0..whole.len().min(300) {
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[index] ^= flip;
                not_after(&broken);
            }
        }
    }
}
