//! Options that are asked for by a name.

use crate::error::{Error, Result};

/// The one of this name. An error begins with `none`, as "there is no policy", and lists the names.
pub(crate) fn find<T: Clone>(named: &[(&str, T)], none: &str, name: &str) -> Result<T> {
    match named.iter().find(|(known, _)| *known == name) {
        Some((_, found)) => Ok(found.clone()),
        None => {
            let names: Vec<&str> = named.iter().map(|(known, _)| *known).collect();
            Err(Error::invalid(format!("{none} {name:?}: it is one of {}", names.join(", "))))
        }
    }
}
