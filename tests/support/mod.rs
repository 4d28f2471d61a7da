//! What several test programs share.

pub mod tiny;

use std::{path::Path, sync::Arc};

use kcache::model::LanguageModel;

/// A tiny model, loaded. Its random weights are fixed by its seed.
pub fn open(tiny: &tiny::Tiny) -> Arc<LanguageModel> {
    let path = tiny.temp();
    let path: &Path = &path;
    Arc::new(LanguageModel::open(path, None).expect("a tiny model opens"))
}
