//! TODO engine::api

pub(crate) mod event;
pub(crate) mod event_queue;
pub(crate) mod request;
