//! From the names in a request to what is prepared for it.
//!
//! | | |
//! |---|---|
//! | [`names`] | refuses names that the graph does not have |
//! | [`signature`] | one set of names for all requests that ask for the same, in whatever order |
//! | [`recent`] | where the calling thread found its last signatures, without a lock |
//! | [`cache`] | what is prepared, by signature; bounded |
//! | [`slot`] | the place of an entry, emptied once nobody uses it |

pub mod cache;
pub mod names;
pub mod recent;
pub mod signature;
pub mod slot;
