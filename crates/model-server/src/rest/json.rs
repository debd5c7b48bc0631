//! JSON, read and written as TensorFlow Serving does: NaN and infinities are numbers, lists of numbers stay
//! on one line where it keeps them so, and floats have its digits.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiter::{JsonErrorType, JsonValue};
use session_group::{Error, Result};

use crate::core::shortened;

/// Reads a request's body.
pub fn parse(body: &[u8]) -> Result<JsonValue<'_>> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.is_empty() {
        return Err(Error::invalid("JSON Parse error: The document is empty"));
    }
    let document = JsonValue::parse(body, true).map_err(|error| {
        use JsonErrorType as Type;
        let text = match error.error_type {
            _ if body.iter().all(u8::is_ascii_whitespace) => "The document is empty.",
            Type::TrailingCharacters => "The document root must not be followed by other values.",
            Type::KeyMustBeAString => "Missing a name for object member.",
            Type::ExpectedColon => "Missing a colon after a name of object member.",
            Type::ExpectedObjectCommaOrEnd | Type::EofWhileParsingObject => {
                "Missing a comma or } after an object member."
            }
            Type::ExpectedListCommaOrEnd | Type::EofWhileParsingList => {
                "Missing a comma or ] after an array element."
            }
            Type::UnexpectedEndOfHexEscape => "Incorrect hex digit after \\u escape in string.",
            Type::LoneLeadingSurrogateInHexEscape | Type::InvalidUnicodeCodePoint => {
                "The surrogate pair in string is invalid."
            }
            Type::InvalidEscape | Type::ControlCharacterWhileParsingString => {
                "Invalid escape character in string."
            }
            Type::EofWhileParsingString => "Missing a closing quotation mark in string.",
            Type::NumberOutOfRange => "Number too big to be stored in double.",
            Type::RecursionLimitExceeded => "Nested too deeply.",
            _ => "Invalid value.",
        };
        Error::invalid(format!("JSON Parse error: {text} at offset: {}", error.index))
    })?;
    const INFINITY: &[u8] = b"Infinity";
    if is_infinite(&document) && !body.windows(INFINITY.len()).any(|bytes| bytes == INFINITY) {
        // As 1e400, which the parser rounds.
        return Err(Error::invalid("JSON Parse error: Number too big to be stored in double."));
    }
    Ok(document)
}

/// Whether it is, or has, an infinite number.
fn is_infinite(value: &JsonValue<'_>) -> bool {
    match value {
        JsonValue::Float(value) => value.is_infinite(),
        JsonValue::Array(values) => values.iter().any(is_infinite),
        JsonValue::Object(members) => members.iter().any(|(_, value)| is_infinite(value)),
        _ => false,
    }
}

/// The first member of this name.
pub fn member<'a, 'j>(object: &'a JsonValue<'j>, name: &str) -> Option<&'a JsonValue<'j>> {
    let JsonValue::Object(members) = object else { return None };
    members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// An object `{"b64": "..."}`: bytes.
pub fn is_base64(value: &JsonValue<'_>) -> bool {
    match value {
        JsonValue::Object(members) => {
            matches!(&members[..], [(key, JsonValue::Str(_))] if key == "b64")
        }
        _ => false,
    }
}

/// The bytes of a string, or of an object `{"b64": "..."}`.
pub fn bytes(value: &JsonValue<'_>) -> Result<Vec<u8>> {
    match value {
        JsonValue::Str(text) => Ok(text.as_bytes().to_vec()),
        _ if is_base64(value) => {
            let Some(JsonValue::Str(text)) = member(value, "b64") else {
                unreachable!("just seen")
            };
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let unpadded = compact.trim_end_matches('=');
            let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
            engine.decode(unpadded).map_err(|_| Error::invalid("Unable to base64 decode"))
        }
        _ => Err(Error::invalid(format!(
            "JSON Value: {} not formatted correctly for base64 data",
            dump(value)
        ))),
    }
}

/// The type of a value, as an error names it.
pub fn type_name(value: &JsonValue<'_>) -> &'static str {
    match value {
        JsonValue::Null => "Null",
        JsonValue::Bool(true) => "True",
        JsonValue::Bool(false) => "False",
        JsonValue::Int(_) | JsonValue::BigInt(_) | JsonValue::Float(_) => "Number",
        JsonValue::Str(_) => "String",
        JsonValue::Array(_) => "Array",
        JsonValue::Object(_) => "Object",
    }
}

/// An integer, if it is one and not beyond what 64 bits hold.
pub fn integer(value: &JsonValue<'_>) -> Option<i128> {
    match value {
        JsonValue::Int(value) => Some(i128::from(*value)),
        JsonValue::BigInt(value) => u64::try_from(value).ok().map(i128::from),
        _ => None,
    }
}

/// Any number.
pub fn number(value: &JsonValue<'_>) -> Option<f64> {
    match value {
        JsonValue::Int(value) => Some(*value as f64),
        JsonValue::BigInt(value) => value.to_string().parse().ok(),
        JsonValue::Float(value) => Some(*value),
        _ => None,
    }
}

/// The value, as an error quotes it.
pub fn dump(value: &JsonValue<'_>) -> String {
    let mut writer = Writer::new();
    writer.most = MOST_QUOTED;
    match value {
        JsonValue::Float(value) if value.abs() <= f64::from(f32::MAX) => writer.f32(*value as f32),
        JsonValue::Float(value) => writer.f64(*value),
        _ => write_value(&mut writer, value),
    }
    shortened(writer.finish(), MOST_QUOTED, "...")
}

/// Bytes of a value that an error quotes: few bytes of a request could become very many.
const MOST_QUOTED: usize = 4096;

fn write_value(writer: &mut Writer, value: &JsonValue<'_>) {
    match value {
        JsonValue::Null => writer.raw("null"),
        JsonValue::Bool(value) => writer.raw(&value.to_string()),
        JsonValue::Int(value) => writer.raw(&value.to_string()),
        JsonValue::BigInt(value) => writer.raw(&value.to_string()),
        JsonValue::Float(value) => writer.raw(&format!("{value:?}")),
        JsonValue::Str(value) => writer.string(value.as_bytes()),
        JsonValue::Array(values) => {
            writer.begin_array();
            for value in values.iter() {
                if writer.is_full() {
                    return;
                }
                write_value(writer, value);
            }
            writer.end_array();
        }
        JsonValue::Object(members) => {
            writer.begin_object();
            for (key, value) in members.iter() {
                if writer.is_full() {
                    return;
                }
                writer.string(key.as_bytes());
                write_value(writer, value);
            }
            writer.end_object();
        }
    }
}

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
        Self { out: Vec::new(), levels: Vec::new(), on_one_line: false, most: usize::MAX }
    }

    fn is_full(&self) -> bool {
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

    #[test]
    fn numbers_may_be_nan_and_mistakes_have_their_place() {
        let body = br#"{"a": [NaN, -Infinity, 18446744073709551615, 1.0]}"#;
        let value = parse(body).unwrap();
        let Some(JsonValue::Array(list)) = member(&value, "a") else { panic!("a list") };
        assert!(number(&list[0]).unwrap().is_nan());
        assert_eq!(number(&list[1]), Some(f64::NEG_INFINITY));
        assert_eq!(integer(&list[2]), Some(i128::from(u64::MAX)));
        assert_eq!(integer(&list[3]), None);
        let wrong = |body: &str| parse(body.as_bytes()).unwrap_err().message;
        assert_eq!(wrong("instances = [1, 2]"), "JSON Parse error: Invalid value. at offset: 0");
        assert_eq!(wrong(""), "JSON Parse error: The document is empty");
        assert!(wrong("{} x").contains("must not be followed"));
        assert!(wrong("[1e400]").contains("Number too big to be stored in double."));
        assert!(parse("\u{feff}{}".as_bytes()).is_ok());
        assert_eq!(wrong("\u{feff}"), wrong(""));
    }

    #[test]
    fn bytes_come_as_base64() {
        let decoded = |text: &str| bytes(&parse(text.as_bytes()).unwrap());
        assert_eq!(decoded(r#"{"b64": "aGVsbG8="}"#).unwrap(), b"hello");
        assert_eq!(decoded(r#"{"b64": "aGVs bG8"}"#).unwrap(), b"hello");
        assert_eq!(decoded(r#""text""#).unwrap(), b"text");
        assert_eq!(decoded(r#"{"b64": "_-"}"#).unwrap_err().message, "Unable to base64 decode");
        assert!(decoded(r#"{"b65": "aGVsbG8="}"#).unwrap_err().message.contains("base64 data"));
    }
}
