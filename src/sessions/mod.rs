//! The sessions of a group, and what keeps them alive and busy.
//!
//! | | |
//! |---|---|
//! | [`members`] | the sessions, their graphs, and the programs that they share |
//! | [`gate`] | keeps them until the last request has left |
//! | [`workers`] | threads of a session that take whole requests from a queue |
//! | [`ticket`] | a request's way to such a thread and back |

pub mod gate;
pub mod members;
pub mod ticket;
pub mod workers;
