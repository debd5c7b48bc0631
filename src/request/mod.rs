//! The way of a request to a session and back.
//!
//! | | |
//! |---|---|
//! | [`state`] | what a group and its callables share |
//! | [`dispatch`] | a policy at work |
//! | [`run`] | the way itself: choose a session, enter, run as a program or by names, count |
//! | [`tensors`] | what a request brings, whichever API it came by |
//! | [`callable`] | requests whose names were looked up once |
//! | [`stats`] | what each session has done, counted without locks |
//! | [`closing`] | the end: drain, cancel, free |

pub mod callable;
pub mod closing;
pub mod dispatch;
pub mod run;
pub mod state;
pub mod stats;
pub mod tensors;
