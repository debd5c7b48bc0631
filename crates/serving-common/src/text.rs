//! Clients' texts in error messages.

/// The beginning of a text, `most` bytes or, at the boundary of a character, a few less.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}
