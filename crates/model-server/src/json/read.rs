//! Reading JSON where it lies: however a body is nested, nothing is built until its values become tensors.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, JsonValue, NumberAny, Peek};
use session_group::{Error, Result};

use super::write::Writer;
use crate::core::shortened;

/// A value of a body that was checked as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Json<'j>(&'j [u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    pub fn of(peek: Peek) -> Self {
        match peek {
            Peek::Null => Self::Null,
            Peek::True => Self::True,
            Peek::False => Self::False,
            Peek::String => Self::String,
            Peek::Array => Self::Array,
            Peek::Object => Self::Object,
            _ => Self::Number,
        }
    }

    /// As an error names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "Null",
            Self::True => "True",
            Self::False => "False",
            Self::Number => "Number",
            Self::String => "String",
            Self::Array => "Array",
            Self::Object => "Object",
        }
    }
}

/// Checks a request's body, which is one value, and finds its first member of each of these names, if it is an object
/// and has one.
pub fn parse<'j, const N: usize>(
    body: &'j [u8],
    names: [&str; N],
) -> Result<(Json<'j>, [Option<Json<'j>>; N])> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.is_empty() {
        return Err(Error::invalid("JSON Parse error: The document is empty"));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        let at = body.len();
        return Err(Error::invalid(format!(
            "JSON Parse error: The document is empty. at offset: {at}"
        )));
    }
    // Skipping does not look at the bytes of strings.
    if let Err(error) = std::str::from_utf8(body) {
        let at = error.valid_up_to();
        return Err(Error::invalid(format!(
            "JSON Parse error: Invalid encoding in string. at offset: {at}"
        )));
    }
    let mut reader = Json(body).reader();
    let peek = reader.peek().map_err(wrong)?;
    let begin = reader.current_index();
    let mut found = [None; N];
    if peek == Peek::Object {
        let find = |key: &str| names.iter().position(|name| *name == key);
        visit_members(&mut reader, find, |reader, peek, at| {
            let value = skip(reader, peek)?;
            if let Some(at) = at {
                found[at].get_or_insert(value);
            }
            Ok(())
        })?;
    } else {
        reader.known_skip(peek).map_err(wrong)?;
    }
    let document = Json(reader.slice_to_current(begin));
    reader.finish().map_err(wrong)?;
    Ok((document, found))
}

/// Visits the members of the object that a reader reads next. `find` says what a name means, and `visit` reads the
/// value.
pub fn visit_members<'j, M>(
    reader: &mut Jiter<'j>,
    find: impl Fn(&str) -> M,
    mut visit: impl FnMut(&mut Jiter<'j>, Peek, M) -> Result<()>,
) -> Result<()> {
    let mut member = reader.known_object().map_err(wrong)?.map(&find);
    while let Some(meaning) = member {
        let peek = reader.peek().map_err(wrong)?;
        visit(reader, peek, meaning)?;
        member = reader.next_key().map_err(wrong)?.map(&find);
    }
    Ok(())
}

/// What the parser has against a body, in TensorFlow Serving's words.
pub(super) fn wrong(error: JiterError) -> Error {
    use JsonErrorType as Type;
    let text = match error.error_type {
        JiterErrorType::WrongType { .. } => "Invalid value.",
        JiterErrorType::JsonError(error) => match error {
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
            Type::NumberOutOfRange => TOO_BIG,
            Type::RecursionLimitExceeded => "Nested too deeply.",
            _ => "Invalid value.",
        },
    };
    Error::invalid(format!("JSON Parse error: {text} at offset: {}", error.index))
}

const TOO_BIG: &str = "Number too big to be stored in double.";

/// The next value, unread.
fn skip<'j>(reader: &mut Jiter<'j>, peek: Peek) -> Result<Json<'j>> {
    let begin = reader.current_index();
    reader.known_skip(peek).map_err(wrong)?;
    Ok(Json(reader.slice_to_current(begin)))
}

/// A value that is no list.
pub struct Leaf<'j> {
    pub json: Json<'j>,
    pub kind: Kind,
    /// What it says; `None` for an object.
    pub value: Option<JsonValue<'j>>,
}

/// The next value, which is no list.
pub(super) fn leaf<'j>(reader: &mut Jiter<'j>, peek: Peek) -> Result<Leaf<'j>> {
    let begin = reader.current_index();
    let value = match peek {
        Peek::Object => {
            reader.known_skip(peek).map_err(wrong)?;
            None
        }
        _ => Some(reader.known_value(peek).map_err(wrong)?),
    };
    let text = reader.slice_to_current(begin);
    if matches!(value, Some(JsonValue::Float(value)) if value.is_infinite())
        && !text.ends_with(b"y")
    {
        // As 1e400, which the parser rounds.
        return Err(Error::invalid(format!("JSON Parse error: {TOO_BIG}")));
    }
    Ok(Leaf { json: Json(text), kind: Kind::of(peek), value })
}

impl Leaf<'_> {
    /// An integer, if it is one and not beyond what 64 bits hold.
    pub fn integer(&self) -> Option<i128> {
        match self.value.as_ref()? {
            JsonValue::Int(value) => Some(i128::from(*value)),
            JsonValue::BigInt(value) => u64::try_from(value).ok().map(i128::from),
            _ => None,
        }
    }

    /// Any number.
    pub fn number(&self) -> Option<f64> {
        match self.value.as_ref()? {
            JsonValue::Int(value) => Some(*value as f64),
            JsonValue::BigInt(value) => value.to_string().parse().ok(),
            JsonValue::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The bytes of a string, or of an object `{"b64": "..."}`.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        if let Some(JsonValue::Str(text)) = &self.value {
            return Ok(text.as_bytes().to_vec());
        }
        let Some(text) = self.json.base64()? else {
            return Err(Error::invalid(format!(
                "JSON Value: {} not formatted correctly for base64 data",
                self.json.dump()
            )));
        };
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let unpadded = compact.trim_end_matches('=');
        STANDARD_NO_PAD.decode(unpadded).map_err(|_| Error::invalid("Unable to base64 decode"))
    }
}

impl<'j> Json<'j> {
    pub(super) fn reader(self) -> Jiter<'j> {
        Jiter::new(self.0).with_allow_inf_nan()
    }

    pub fn kind(self) -> Kind {
        self.reader().peek().map_or(Kind::Null, Kind::of)
    }

    /// The value, which is no list.
    pub fn leaf(self) -> Result<Leaf<'j>> {
        let mut reader = self.reader();
        let peek = reader.peek().map_err(wrong)?;
        leaf(&mut reader, peek)
    }

    /// The text, if it is a string.
    pub fn text(self) -> Option<String> {
        match self.kind() {
            Kind::String => self.reader().next_str().ok().map(str::to_string),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn elements(self) -> impl Iterator<Item = Result<Json<'j>>> {
        let mut reader = self.reader();
        let mut has_begun = false;
        std::iter::from_fn(move || {
            let next = match std::mem::replace(&mut has_begun, true) {
                false => reader.next_array(),
                true => reader.array_step(),
            };
            Some(next.map_err(wrong).transpose()?.and_then(|peek| skip(&mut reader, peek)))
        })
        .fuse()
    }

    /// The members of an object.
    pub fn members(self) -> impl Iterator<Item = Result<(String, Json<'j>)>> {
        let mut reader = self.reader();
        let mut has_begun = false;
        std::iter::from_fn(move || {
            let next = match std::mem::replace(&mut has_begun, true) {
                false => reader.next_object(),
                true => reader.next_key(),
            };
            let key = next.map(|key| key.map(str::to_string)).map_err(wrong).transpose()?;
            Some(key.and_then(|key| {
                let peek = reader.peek().map_err(wrong)?;
                Ok((key, skip(&mut reader, peek)?))
            }))
        })
        .fuse()
    }

    /// Visits the elements of a list. `visit` gets each of them, with all that comes after it, and reads it.
    pub fn visit_elements(
        self,
        mut visit: impl FnMut(&mut Jiter<'j>, Peek, Json<'j>) -> Result<()>,
    ) -> Result<()> {
        let mut reader = self.reader();
        let mut next = reader.next_array().map_err(wrong)?;
        while let Some(peek) = next {
            let element = Json(&self.0[reader.current_index()..]);
            visit(&mut reader, peek, element)?;
            next = reader.array_step().map_err(wrong)?;
        }
        Ok(())
    }

    /// What an object `{"b64": "..."}` says.
    fn base64(self) -> Result<Option<String>> {
        // Few objects are, and what others hold is not looked at for that.
        if self.kind() != Kind::Object || self.reader().next_object().map_err(wrong)? != Some("b64")
        {
            return Ok(None);
        }
        let mut members = self.members();
        let (first, second) = (members.next().transpose()?, members.next().transpose()?);
        Ok(match (first, second) {
            (Some((key, value)), None) if key == "b64" => value.text(),
            _ => None,
        })
    }

    /// Whether it is an object `{"b64": "..."}`: bytes.
    pub fn is_base64(self) -> bool {
        matches!(self.base64(), Ok(Some(_)))
    }

    /// The value, as an error quotes it.
    pub fn dump(self) -> String {
        /// Few bytes of a request could become very many.
        const MOST: usize = 4096;
        let mut writer = Writer::up_to(MOST);
        let number = match self.kind() {
            Kind::Number => self.reader().next_number().ok(),
            _ => None,
        };
        match number {
            Some(NumberAny::Float(value)) if value.abs() <= f64::from(f32::MAX) => {
                writer.f32(value as f32);
            }
            Some(NumberAny::Float(value)) => writer.f64(value),
            _ => {
                let mut reader = self.reader();
                // What is wrong halfway is quoted as far as it is right.
                let _ = reader.peek().and_then(|peek| quote(&mut reader, peek, &mut writer));
            }
        }
        shortened(writer.finish(), MOST, "...")
    }
}

/// Writes the next value, as far as the writer takes it.
fn quote(
    reader: &mut Jiter<'_>,
    peek: Peek,
    writer: &mut Writer,
) -> std::result::Result<(), JiterError> {
    match peek {
        Peek::Array => {
            writer.begin_array();
            let mut next = reader.known_array()?;
            while let Some(peek) = next.filter(|_| !writer.is_full()) {
                quote(reader, peek, writer)?;
                next = reader.array_step()?;
            }
            writer.end_array();
        }
        Peek::Object => {
            writer.begin_object();
            let mut key = reader.known_object()?.map(str::to_string);
            while let Some(name) = key.filter(|_| !writer.is_full()) {
                writer.string(name.as_bytes());
                let peek = reader.peek()?;
                quote(reader, peek, writer)?;
                key = reader.next_key()?.map(str::to_string);
            }
            writer.end_object();
        }
        Peek::String => writer.string(reader.known_str()?.as_bytes()),
        _ => match reader.known_value(peek)? {
            JsonValue::Int(value) => writer.raw(&value.to_string()),
            JsonValue::BigInt(value) => writer.raw(&value.to_string()),
            JsonValue::Float(value) => writer.raw(&format!("{value:?}")),
            JsonValue::Bool(value) => writer.raw(&value.to_string()),
            _ => writer.raw("null"),
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_nan_and_mistakes_have_their_place() {
        let body = br#"{"a": [NaN, -Infinity, 18446744073709551615, 1.0]}"#;
        let (_, [list]) = parse(body, ["a"]).unwrap();
        let list = list.unwrap();
        let list: Vec<_> = list.elements().map(|value| value.unwrap().leaf().unwrap()).collect();
        assert!(list[0].number().unwrap().is_nan());
        assert_eq!(list[1].number(), Some(f64::NEG_INFINITY));
        assert_eq!(list[2].integer(), Some(i128::from(u64::MAX)));
        assert_eq!(list[3].integer(), None);
        let wrong = |body: &str| parse(body.as_bytes(), []).unwrap_err().message;
        assert_eq!(wrong("instances = [1, 2]"), "JSON Parse error: Invalid value. at offset: 0");
        assert_eq!(wrong(""), "JSON Parse error: The document is empty");
        assert!(wrong("{} x").contains("must not be followed"));
        let message = parse(b"1e400", []).unwrap().0.leaf().err().unwrap().message;
        assert!(message.contains("Number too big to be stored in double."));
        assert!(parse("\u{feff}{}".as_bytes(), []).is_ok());
        assert_eq!(wrong("\u{feff}"), wrong(""));
        let message = parse(b"[1, \"\xff\"]", []).unwrap_err().message;
        assert_eq!(message, "JSON Parse error: Invalid encoding in string. at offset: 5");
    }

    #[test]
    fn bytes_come_as_base64() {
        let decoded = |text: &str| parse(text.as_bytes(), []).unwrap().0.leaf().unwrap().bytes();
        assert_eq!(decoded(r#"{"b64": "aGVsbG8="}"#).unwrap(), b"hello");
        assert_eq!(decoded(r#"{"b64": "aGVs bG8"}"#).unwrap(), b"hello");
        assert_eq!(decoded(r#""text""#).unwrap(), b"text");
        assert_eq!(decoded(r#"{"b64": "_-"}"#).unwrap_err().message, "Unable to base64 decode");
        for other in [r#"{"b65": "aGVsbG8="}"#, "{}", r#"{"b64": "YQ==", "a": 1}"#] {
            assert!(decoded(other).unwrap_err().message.contains("base64 data"), "{other}");
        }
    }

    #[test]
    fn what_is_quoted_ends_somewhere() {
        let dump = |text: &str| parse(text.as_bytes(), []).unwrap().0.dump();
        assert_eq!(
            dump(r#"{"a":[1,"x",null,true]}"#).split_whitespace().collect::<String>(),
            r#"{"a":[1,"x",null,true]}"#
        );
        assert_eq!((dump("0.1"), dump("1")), ("0.1".to_string(), "1".to_string()));
        assert_eq!(dump(&format!("[{}0]", "0,".repeat(10_000))).len(), 4096 + 3);
    }
}
