//! The way of a request to a session and back.
//!
//! | | |
//! |---|---|
//! | [`run`] | the way itself: choose a session, enter, run as a program or by names, count |
//! | [`callable`] | requests whose names were looked up once |
//! | [`stats`] | what each session has done, counted without locks |
//! | [`closing`] | the end: drain, cancel, free |

pub mod callable;
pub mod closing;
pub mod run;
pub mod stats;
