//! Operations that are not TensorFlow's own, from libraries that a program's settings name.

use std::path::Path;

use session_group::tensorflow::library;
use session_group::{Code, Error, Result};
use tracing::info;

use crate::paths::check_local;

/// Loads the libraries, one after the other.
pub fn load(libraries: &[impl AsRef<Path>]) -> Result<()> {
    for path in libraries {
        let path = path.as_ref();
        check_local(path)?;
        library::load(path)?;
        info!("the operations of {} are known", path.display());
    }
    Ok(())
}

/// The operation that a model lacks, if that is the error.
pub fn lacking(error: &Error) -> Option<&str> {
    let (_, named) = error.message.split_once("Op type not registered '")?;
    named.split('\'').next()
}

/// An error of a model; where it lacks an operation, it says by which setting to give that. No retry mends it.
pub fn explained(error: Error, setting: &str) -> Error {
    let Some(name) = lacking(&error) else { return error };
    let message = format!(
        "{}; name the library that has the operation {name} in {setting}",
        error.message.trim_end().trim_end_matches('.')
    );
    Error::new(Code::Unimplemented, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_is_not_known_is_named_with_the_setting() {
        let text = "SavedModel /m: its graph was refused: Op type not registered 'Twice' in binary running on h. Make \
                    sure the Op and Kernel are registered.";
        let error = explained(Error::new(Code::NotFound, text), "--custom_op_libraries");
        let end = "are registered; name the library that has the operation Twice in --custom_op_libraries";
        assert!(error.message.ends_with(end), "{error}");
        assert_eq!(error.code, Code::Unimplemented);
        let other = explained(Error::new(Code::NotFound, "no file"), "--custom_op_libraries");
        assert_eq!((other.code, other.message.as_str()), (Code::NotFound, "no file"));
    }
}
