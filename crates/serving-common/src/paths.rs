//! Paths that are given to programs.

use std::path::Path;

use session_group::{Error, Result};

/// Refuses the address of a store that is no file system of this machine.
pub fn check_local(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(()) };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return Ok(());
    }
    Err(Error::invalid(match scheme.to_ascii_lowercase().as_str() {
        "file" => format!("{text} is an address: give the path alone, {rest}"),
        _ => format!(
            "{text} is not on this machine: files and folders are taken from a local or mounted file system, and not \
             from {scheme}://. Copy or mount what is there, and give the path of that"
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_told_from_folders() {
        for local in ["/models/x", "models", "", "/a/gs://b", "://x", "a:b//c", "C:/x"] {
            assert!(check_local(Path::new(local)).is_ok(), "{local}");
        }
        for store in
            ["gs://b/m", "s3://b", "hdfs://host:9000/m", "viewfs://x", "S3A://b", "oss://x"]
        {
            let message = check_local(Path::new(store)).unwrap_err().message;
            assert!(message.contains("local or mounted"), "{message}");
            assert!(message.contains(store), "{message}");
        }
        let message = check_local(Path::new("file:///models/x")).unwrap_err().message;
        assert!(message.ends_with("give the path alone, /models/x"), "{message}");
    }
}
