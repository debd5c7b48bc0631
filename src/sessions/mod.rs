//! The sessions of a group, and what keeps them alive and busy.
//!
//! | | |
//! |---|---|
//! | [`set`] | the sessions, their graphs, and the programs that they share |
//! | [`session_slot`] | one session, with its threads |
//! | [`compiler`] | the session that compiles programs |
//! | [`gate`] | keeps them until the last request has left |
//! | [`workers`] | threads of a session that take whole requests from a queue |
//! | [`ticket`] | a request's way to such a thread and back |

pub mod compiler;
pub mod gate;
pub mod session_slot;
pub mod set;
pub mod ticket;
pub mod workers;
