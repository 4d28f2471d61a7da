//! What goes into the engine and what comes out of it: requests, options and events, and the queue of events between the
//! engine's thread and its reader. These are data. No file here knows how a request is handled.

pub(crate) mod event;
pub(crate) mod event_queue;
pub(crate) mod options;
pub(crate) mod request;
