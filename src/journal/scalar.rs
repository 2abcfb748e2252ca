//! How single values are written into a line and read back: times, hexadecimal numbers, decimal numbers, JSON values.

use serde::Serialize;

use super::decode::RecordError;
use crate::clock::Timestamp;

/// Latest time that RFC 3339 and jiff can both write, in milliseconds; later ones are written as this.
fn latest() -> u64 {
    jiff::Timestamp::MAX.as_millisecond() as u64
}

/// Writes times as RFC 3339 in UTC with milliseconds, remembering the text of the last second: most lines share it.
#[derive(Debug, Clone)]
pub(crate) struct TimeWriter {
    second: u64,
    /// `2026-11-23T21:30:54.`
    text: String,
}

impl Default for TimeWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeWriter {
    pub(crate) fn new() -> Self {
        Self {
            second: u64::MAX,
            text: String::new(),
        }
    }

    pub(crate) fn write(&mut self, line: &mut Vec<u8>, time: Timestamp) {
        let millis = time.as_millis().min(latest());
        let second = millis / 1000;
        if second != self.second {
            self.second = second;
            self.text = Timestamp::from_millis(second * 1000).to_string();
            // The cut-off end is the milliseconds and the Z.
            self.text.truncate(self.text.len().saturating_sub(4));
        }
        line.extend_from_slice(self.text.as_bytes());
        let fraction = millis % 1000;
        line.extend_from_slice(&[
            b'0' + (fraction / 100) as u8,
            b'0' + (fraction / 10 % 10) as u8,
            b'0' + (fraction % 10) as u8,
            b'Z',
        ]);
    }
}

/// Reads what [`TimeWriter`] writes.
pub(crate) fn parse_time(field: &'static str, text: &str) -> Result<Timestamp, RecordError> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|time| u64::try_from(time.as_millisecond()).ok())
        .map(Timestamp::from_millis)
        .ok_or(RecordError::Field {
            field,
            expected: "an RFC 3339 time since 1970",
        })
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes the low `digits` hexadecimal digits of `number`.
pub(crate) fn write_hex(line: &mut Vec<u8>, number: u128, digits: u32) {
    for digit in (0..digits).rev() {
        line.push(HEX[(number >> (4 * digit)) as usize & 15]);
    }
}

/// Reads exactly `digits` hexadecimal digits.
pub(crate) fn parse_hex(
    field: &'static str,
    text: &str,
    digits: usize,
) -> Result<u128, RecordError> {
    let well_formed = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .ok_or(RecordError::Field {
            field,
            expected: "hexadecimal digits",
        })
}

/// Writes a decimal number.
pub(crate) fn write_decimal(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[start..]);
}

/// Reads a decimal number that was written as a string.
pub(crate) fn parse_decimal(field: &'static str, text: &str) -> Result<u64, RecordError> {
    text.parse().map_err(|_| RecordError::Field {
        field,
        expected: "a whole number in a string",
    })
}

/// Writes a JSON value. Floats get the shortest text that reads back as the same bits; those that are not finite become `null`.
pub(crate) fn write_json(line: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(line, value);
    debug_assert!(written.is_ok(), "memory takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(time: u64) -> String {
        let mut line = Vec::new();
        TimeWriter::new().write(&mut line, Timestamp::from_millis(time));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times_are_written_as_rfc_3339_and_read_back() {
        assert_eq!(written(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(1_795_500_000_007), "2026-11-24T06:00:00.007Z");
        let mut writer = TimeWriter::new();
        for millis in (0..200_000_000_000_000).step_by(1_234_567_890_123) {
            let time = Timestamp::from_millis(millis);
            let mut line = Vec::new();
            writer.write(&mut line, time);
            let text = std::str::from_utf8(&line).unwrap();
            assert_eq!(parse_time("at", text).unwrap(), time, "{text}");
            assert_eq!(text, time.to_string());
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_written_as_its_last() {
        assert_eq!(written(u64::MAX), written(latest()));
        assert_eq!(
            parse_time("at", &written(u64::MAX)).unwrap(),
            Timestamp::from_millis(latest())
        );
    }

    #[test]
    fn numbers_survive_the_round_trip() {
        for number in [0, 9, 10, 255, u64::MAX] {
            let mut decimal = Vec::new();
            write_decimal(&mut decimal, number);
            assert_eq!(decimal, number.to_string().as_bytes());
            let mut hex = Vec::new();
            write_hex(&mut hex, u128::from(number), 16);
            let text = std::str::from_utf8(&hex).unwrap();
            assert_eq!(parse_hex("unit", text, 16).unwrap(), u128::from(number));
        }
        assert!(parse_hex("unit", "+f", 2).is_err());
        assert!(parse_hex("unit", "fff", 2).is_err());
    }
}
