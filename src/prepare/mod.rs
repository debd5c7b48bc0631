//! From the names in a request to what is prepared for it.
//!
//! | | |
//! |---|---|
//! | [`names`] | refuses names that the graph does not have |
//! | [`signature`] | one set of names for all requests that ask for the same, in whatever order |
//! | [`recent`] | where the calling thread found its last signatures, without a lock |
//! | [`cache`] | what is prepared, by signature; bounded |
//! | [`obstacle`] | why requests can't run as a program, in words |
//! | [`compiled`] | an entry: a program, and each session's instance of it |
//! | [`slot`] | the place of an entry, emptied once nobody uses it |

pub mod cache;
pub mod compiled;
pub mod names;
pub mod obstacle;
pub mod recent;
pub mod signature;
pub mod slot;
