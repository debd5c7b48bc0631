//! Writing JSON as TensorFlow Serving does: lists of numbers stay on one line where it keeps them so, and floats have
//! its digits.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Writes JSON with four spaces for each level. Text that models give need not be UTF-8, so bytes.
pub struct Writer {
    out: Vec<u8>,
    /// For each open list or object: whether it is a list, and how much is in it.
    levels: Vec<(bool, usize)>,
    /// Whether lists are on one line from now on.
    pub on_one_line: bool,
    /// After how many bytes it is full.
    most: usize,
}

impl Writer {
    pub fn new() -> Self {
        Self::up_to(usize::MAX)
    }

    /// One that is full after so many bytes.
    pub fn up_to(most: usize) -> Self {
        Self { out: Vec::new(), levels: Vec::new(), on_one_line: false, most }
    }

    pub fn is_full(&self) -> bool {
        self.out.len() > self.most
    }

    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    fn line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + 4 * self.levels.len(), b' ');
    }

    /// What stands before a value or a name.
    fn prefix(&mut self) {
        let Some((is_list, count)) = self.levels.last_mut() else { return };
        let (is_list, before) = (*is_list, *count);
        *count += 1;
        match (is_list, before) {
            (true, _) => {
                if before > 0 {
                    self.out.push(b',');
                    if self.on_one_line {
                        self.out.push(b' ');
                    }
                }
                if !self.on_one_line {
                    self.line();
                }
            }
            (false, before) if before % 2 == 1 => self.out.extend(b": "),
            (false, before) => {
                if before > 0 {
                    self.out.push(b',');
                }
                self.line();
            }
        }
    }

    pub fn begin_object(&mut self) {
        self.prefix();
        self.levels.push((false, 0));
        self.out.push(b'{');
    }

    pub fn end_object(&mut self) {
        if self.levels.pop().is_some_and(|(_, count)| count > 0) {
            self.line();
        }
        self.out.push(b'}');
    }

    pub fn begin_array(&mut self) {
        self.prefix();
        self.levels.push((true, 0));
        self.out.push(b'[');
    }

    pub fn end_array(&mut self) {
        if self.levels.pop().is_some_and(|(_, count)| count > 0) && !self.on_one_line {
            self.line();
        }
        self.out.push(b']');
    }

    /// A value that needs no quotes.
    pub fn raw(&mut self, text: &str) {
        self.prefix();
        self.out.extend(text.as_bytes());
    }

    /// A name or a text.
    pub fn string(&mut self, text: &[u8]) {
        self.prefix();
        self.out.push(b'"');
        for &byte in text {
            match byte {
                b'"' => self.out.extend(b"\\\""),
                b'\\' => self.out.extend(b"\\\\"),
                0x08 => self.out.extend(b"\\b"),
                0x0c => self.out.extend(b"\\f"),
                b'\n' => self.out.extend(b"\\n"),
                b'\r' => self.out.extend(b"\\r"),
                b'\t' => self.out.extend(b"\\t"),
                0..0x20 => self.out.extend(format!("\\u{byte:04X}").as_bytes()),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }

    /// Bytes, as an object `{"b64": "..."}`.
    pub fn base64(&mut self, bytes: &[u8]) {
        self.begin_object();
        self.string(b"b64");
        self.string(STANDARD.encode(bytes).as_bytes());
        self.end_object();
    }

    pub fn f32(&mut self, value: f32) {
        let short = general(f64::from(value), 6);
        let text = match short.parse::<f32>() == Ok(value) {
            true => short,
            false => general(f64::from(value), 9),
        };
        self.raw(&decimal(f64::from(value), text));
    }

    pub fn f64(&mut self, value: f64) {
        let short = general(value, 6);
        let text = if short.parse::<f64>() == Ok(value) { short } else { general(value, 17) };
        self.raw(&decimal(value, text));
    }
}

fn decimal(value: f64, mut text: String) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string();
    }
    if !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

/// So many significant digits, as C's `%g`.
fn general(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_string();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("as {:e} writes");
    let exponent: i32 = exponent.parse().expect("as {:e} writes");
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let mut text = trimmed(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(text, "e{sign}{:02}", exponent.abs());
        return text;
    }
    trimmed(&format!("{value:.*}", (digits as i32 - 1 - exponent) as usize))
}

/// The body of an error's answer.
pub fn error_body(message: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.begin_object();
    writer.string(b"error");
    writer.string(message.as_bytes());
    writer.end_object();
    writer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_have_the_digits_that_clients_know() {
        let f32 = |value| {
            let mut writer = Writer::new();
            writer.f32(value);
            writer.finish()
        };
        for (value, text) in [
            (1.0, "1.0"),
            (0.2, "0.2"),
            (9_000_000.0, "9e+06"),
            (1e10, "1e+10"),
            (999_999.0, "999999.0"),
            (0.0003, "0.0003"),
            (0.00003, "3e-05"),
            (555_557.5, "555557.5"),
            (1.0 / 3.0, "0.333333343"),
            (16_777_216.0, "16777216.0"),
            (1_234_567.0, "1234567.0"),
            (1_000_000.0, "1e+06"),
            (1.234_567_9e-7, "1.23456786e-07"),
            (-0.0, "-0.0"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(f32(value), text);
        }
        let f64 = |value| {
            let mut writer = Writer::new();
            writer.f64(value);
            writer.finish()
        };
        assert_eq!(f64(0.1), "0.1");
        assert_eq!(f64(1.0 / 3.0), "0.33333333333333331");
        assert_eq!(f64(0.7654321), "0.76543209999999995");
    }

    #[test]
    fn the_layout_is_that_of_tensorflow_serving() {
        let mut writer = Writer::new();
        writer.begin_object();
        writer.string(b"predictions");
        writer.begin_array();
        for row in [[1.0, 2.0], [3.0, 4.0]] {
            writer.on_one_line = true;
            writer.begin_array();
            row.into_iter().for_each(|value| writer.f32(value));
            writer.end_array();
            writer.on_one_line = true;
        }
        writer.on_one_line = false;
        writer.end_array();
        writer.end_object();
        let expected = "{\n    \"predictions\": [[1.0, 2.0], [3.0, 4.0]\n    ]\n}";
        assert_eq!(writer.finish(), expected);
        assert_eq!(error_body("a \"b\"\n"), b"{\n    \"error\": \"a \\\"b\\\"\\n\"\n}");
    }
}
